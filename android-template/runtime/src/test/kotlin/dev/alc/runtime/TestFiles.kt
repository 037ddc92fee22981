package dev.alc.runtime

import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadedModel
import kotlinx.coroutines.runBlocking
import org.junit.Assume.assumeTrue
import java.io.File
import java.lang.ref.PhantomReference
import java.lang.ref.Reference
import java.lang.ref.ReferenceQueue
import java.nio.file.Files

/**
 * The native library and the package that tests run with: the system properties `alc.runtime`
 * and `alc.package`, or the environment's `ALC_RUNTIME` and `ALC_PACKAGE`. Without them, tests
 * that need them are skipped.
 */
internal object TestFiles {
    private val library = setting("alc.runtime", "ALC_RUNTIME")
    private val folder = setting("alc.package", "ALC_PACKAGE")
    private val SYSTEM = listOf("/proc/", "/sys/", "/dev/", System.getProperty("java.home"))

    /** Libraries that tests load are copied here. */
    val codeCache: File by lazy { temporaryFolder() }

    fun runtime(): TVMRuntime {
        assumeTrue("no native library was given (ALC_RUNTIME)", library != null)
        return TVMRuntime.load(library)
    }

    fun packageFolder(): File {
        runtime()
        assumeTrue("no model package was given (ALC_PACKAGE)", folder != null)
        return File(folder!!)
    }

    fun libraryPath(): String {
        runtime()
        return library!!
    }

    fun open(path: File = packageFolder(), options: LoadOptions = LoadOptions()): LoadedModel =
        runBlocking { TVMModelLoader(runtime(), codeCache).load(path.path, options) }

    /** A copy of the package, of which [change] may alter `package.json`; weights are linked. */
    fun altered(change: (String) -> String = { it }): File {
        val target = temporaryFolder()
        val source = packageFolder()
        for (file in source.walkTopDown().filter { it.isFile }) {
            val copy = File(target, file.relativeTo(source).path)
            copy.parentFile.mkdirs()
            if (file.name == ModelFiles.DESCRIPTION) {
                copy.writeText(change(file.readText()))
            } else {
                Files.createSymbolicLink(copy.toPath(), file.toPath().toRealPath())
            }
        }
        return target
    }

    /** Puts a changed copy in the place of a linked file. */
    fun replace(file: File, change: (ByteArray) -> ByteArray) {
        val bytes = file.readBytes()
        file.delete()
        file.writeBytes(change(bytes))
    }

    /** Native handles that are held when nothing unreachable is left. */
    fun heldHandles(): Long {
        var last = Long.MAX_VALUE
        repeat(4) {
            collectGarbage()
            LogitsView.sweep()
            last = minOf(last, NativeBindings.heldHandles())
        }
        return last
    }

    /**
     * Returns when what was unreachable is in its reference queue.
     *
     * A collection hands over all that it found at once and in no order: when something that the next
     * one found has arrived, all of this one has.
     */
    private fun collectGarbage() = repeat(2) {
        val queue = ReferenceQueue<Any>()
        val unreachable = PhantomReference(Any(), queue)
        do System.gc() while (queue.remove(100) == null)
        Reference.reachabilityFence(unreachable)
    }

    /** Files of models that are mapped into this process. */
    fun mappedModelFiles(): List<String> = File("/proc/self/maps").readLines()
        .map { it.substringAfterLast(' ') }
        .filter { "params_shard" in it || "libmodel.so" in it }
        .distinct()

    /**
     * What this process has open, by name; but neither the virtual machine's own files and archives of
     * classes, which it opens when it needs one, nor the kernel's.
     */
    fun openFiles(): List<String> = File("/proc/self/fd").listFiles()!!
        .mapNotNull { runCatching { Files.readSymbolicLink(it.toPath()).toString() }.getOrNull() }
        .filter { name -> name.startsWith("/") && SYSTEM.none(name::startsWith) && !name.endsWith(".jar") }
        .sorted()

    fun temporaryFolder(): File = Files.createTempDirectory("alc-test").toFile().apply {
        Runtime.getRuntime().addShutdownHook(Thread { deleteRecursively() })
    }

    private fun setting(property: String, variable: String): String? =
        System.getProperty(property) ?: System.getenv(variable)
}
