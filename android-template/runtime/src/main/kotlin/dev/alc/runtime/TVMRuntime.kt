package dev.alc.runtime

import dev.alc.engine.BackendException
import dev.alc.engine.LifecycleException
import dev.alc.engine.StrategyUnavailableException

/**
 * The native TVM runtime of this process: loaded once, the same for every model.
 *
 * @property version the version of Apache TVM that it was built from, such as `0.27.0.post1`.
 *   A compiled model runs with exactly this version.
 * @property abi the Android ABI that it was compiled for, such as `arm64-v8a`.
 * @property cpuFeatures what the processor can do, in the words of `/proc/cpuinfo`.
 */
public class TVMRuntime private constructor(
    public val version: String,
    public val abi: String,
    public val cpuFeatures: Set<String>,
) {
    /** What computes, for reports: the processor and the vector instructions that it has. */
    public val backend: String
        get() = "cpu $abi" + SHOWN.filter { it in cpuFeatures }.joinToString("") { " $it" }

    /**
     * Native objects that this process holds at the moment, of all models together. Steady while
     * nothing leaks; not zero without models, since functions of the runtime are kept.
     */
    public val heldHandles: Long
        get() = NativeBindings.heldHandles()

    private val functions = HashMap<String, Long>()

    /** The handle of a global function; it is kept for the life of the process. */
    internal fun function(name: String): Long = synchronized(functions) {
        functions.getOrPut(name) {
            val handle = NativeBindings.globalFunction(name.toByteArray())
            if (handle == 0L) throw BackendException("this TVM runtime has no function $name")
            handle
        }
    }

    /** Opens the process's one [TVMRuntime]. */
    public companion object {
        private const val NAME = "alc_runtime"
        private val SHOWN = listOf("asimddp", "i8mm", "avx2", "avx512f")

        private var loaded: TVMRuntime? = null

        /**
         * Loads `libalc_runtime.so` unless it is loaded already.
         *
         * @param library the file's absolute path; null lets the class loader find it, as in an
         *   app, whose APK carries it.
         * @throws StrategyUnavailableException if there is none, or if it cannot be loaded here.
         */
        @Synchronized
        public fun load(library: String? = null): TVMRuntime = loaded ?: open(library).also {
            loaded = it
        }

        private fun open(library: String?): TVMRuntime {
            try {
                if (library == null) System.loadLibrary(NAME) else System.load(library)
                val facts = String(NativeBindings.describe()).lines().associate { line ->
                    line.substringBefore('=') to line.substringAfter('=')
                }
                return TVMRuntime(
                    version = facts.getValue("tvm"),
                    abi = facts.getValue("abi"),
                    cpuFeatures = facts.getValue("features").split(' ').filterTo(HashSet()) {
                        it.isNotEmpty()
                    },
                )
            } catch (error: LinkageError) {
                val what = library ?: "lib$NAME.so for ${System.getProperty("os.arch")}"
                throw StrategyUnavailableException("$what cannot be loaded: ${error.message}")
            }
        }
    }
}

/** The thread that a native object belongs to, and whether the object is still there. */
internal class Ownership(private val what: String) {
    private val owner = Thread.currentThread()

    @Volatile
    private var closed = false

    val isClosed: Boolean
        get() = closed

    /** Refuses a second thread, and a call after [close]. */
    fun check() {
        checkThread()
        if (closed) throw LifecycleException("$what is closed")
    }

    /** Says whether it is time to release: true once, false when it was closed before. */
    fun close(): Boolean {
        if (closed) return false
        checkThread()
        closed = true
        return true
    }

    private fun checkThread() {
        val caller = Thread.currentThread()
        if (caller !== owner) {
            throw LifecycleException(
                "$what belongs to the thread \"${owner.name}\" and was used by \"${caller.name}\"",
            )
        }
    }
}

/** Runs [body] and says what failed where native code reports an error. */
internal inline fun <T> native(what: String, body: () -> T): T = try {
    body()
} catch (failure: NativeException) {
    throw BackendException("$what: ${failure.message}", failure)
}
