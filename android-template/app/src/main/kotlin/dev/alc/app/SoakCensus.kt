package dev.alc.app

import java.io.File
import java.io.IOException
import java.nio.file.Files

/**
 * What this process holds of the system, each by its name as often as it is there.
 *
 * @property threads those of the engine, the native threads that they started included: a thread
 *   that does not name itself bears its parent's name. The virtual machine's own come and go.
 * @property files open files, but neither archives of classes, which are opened when one is needed,
 *   nor the kernel's own, in which the virtual machine looks something up, nor sockets, such as the
 *   log's.
 */
internal class SoakCensus private constructor(val threads: List<String>, val files: List<String>) {
    companion object {
        private const val ENGINE_THREADS = "alc-"
        private val ARCHIVES = listOf(".jar", ".apk", "/modules")
        private val SYSTEM = listOf("/proc/", "/sys/", "socket:")

        fun take(): SoakCensus {
            val threads = entries("/proc/self/task") { File(it, "comm").readText().trim() }
            val files = entries("/proc/self/fd") { Files.readSymbolicLink(it.toPath()).toString() }
            return SoakCensus(
                threads.filter { it.startsWith(ENGINE_THREADS) },
                files.filter { file -> ARCHIVES.none(file::endsWith) && SYSTEM.none(file::startsWith) },
            )
        }

        private fun entries(folder: String, name: (File) -> String): List<String> =
            File(folder).listFiles().orEmpty().mapNotNull { entry ->
                try {
                    name(entry)
                } catch (_: IOException) {
                    null // It has ended since it was listed.
                }
            }.sorted()
    }
}
