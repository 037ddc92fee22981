package dev.alc.runtime

import dev.alc.engine.LoadOptions
import java.io.File

/**
 * Opens a package in a process of its own, fills its key/value cache, and prints the bytes that the
 * cache counts and those that the process has taken since for what is no file.
 *
 * In a process that had a model before, memory that was freed comes back without being seen.
 */
internal object FilledCache {
    // Enough to stand out from the buffers beside the cache, little enough to be filled soon.
    private const val POOL_BYTES = 16 shl 20
    private const val MAX_SESSIONS = 64

    // A key and a value of float16.
    private const val SMALLEST_PAIR = 4

    class Bytes(val counted: Long, val taken: Long)

    /** Runs [main] in another JVM. */
    fun measure(): Bytes {
        val child = ProcessBuilder(
            File(System.getProperty("java.home"), "bin/java").path, "-XX:+UseSerialGC",
            "-cp", System.getProperty("java.class.path"),
            FilledCache::class.java.name, TestFiles.packageFolder().path, TestFiles.libraryPath(),
        ).redirectError(ProcessBuilder.Redirect.INHERIT).start()
        val (counted, taken) = child.inputStream.bufferedReader().readText().trim().split(" ").map { it.toLong() }
        check(child.waitFor() == 0)
        return Bytes(counted, taken)
    }

    @JvmStatic
    fun main(arguments: Array<String>) {
        System.setProperty("alc.package", arguments[0])
        System.setProperty("alc.runtime", arguments[1])
        val description = ModelFiles.open(arguments[0]).description
        val page = description.kvCache.pageSize
        val window = description.contextWindow / page * page
        val bytesPerToken = description.kvCache.run { layers * kvHeads * headDim * SMALLEST_PAIR }
        val tokens = minOf(POOL_BYTES / bytesPerToken, MAX_SESSIONS * window) / page * page
        val before = ResidentMemory.mappings()
        val options = LoadOptions(contextTokens = tokens, maxSessions = (tokens + window - 1) / window)
        TestFiles.open(File(arguments[0]), options).use { model ->
            val taken = ResidentMemory.fresh(before)
            for (session in 0 until tokens step window) {
                val open = model.openSession()
                val end = minOf(session + window, tokens)
                for (at in session until end step model.info.prefillChunk) {
                    open.prefill(IntArray(minOf(model.info.prefillChunk, end - at)))
                }
            }
            println("${model.cache.allocatedBytes} ${ResidentMemory.bytes(taken)}")
        }
    }
}
