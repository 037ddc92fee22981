package dev.alc.runtime

/**
 * The model libraries that this process has open.
 *
 * A library keeps a pointer to the one TVM module that opened it, so a second module over the
 * same file would leave the first with a dangling pointer. Therefore models that share a library
 * share its module; what differs between them is made later, for each of them.
 */
internal object ModelLibraries {
    private class Entry(val handle: Long, var users: Int)

    private val open = HashMap<String, Entry>()

    /** Opens the library at [path]. */
    @Synchronized
    fun open(runtime: TVMRuntime, path: String): ModelLibrary {
        val entry = open.getOrPut(path) {
            val load = runtime.function("ffi.ModuleLoadFromFile")
            Entry(
                native("cannot load $path") { CallFrame().begin().text(path).callForHandle(load) },
                users = 0,
            )
        }
        entry.users++
        return ModelLibrary(path, entry.handle)
    }

    @Synchronized
    internal fun close(path: String) {
        val entry = open.getValue(path)
        entry.users--
        if (entry.users == 0) {
            open.remove(path)
            NativeBindings.release(entry.handle)
        }
    }
}

/** A share of an open model library; [module] is its TVM module while this is not closed. */
internal class ModelLibrary(private val path: String, val module: Long) : AutoCloseable {
    private var closed = false

    override fun close() {
        if (!closed) ModelLibraries.close(path)
        closed = true
    }
}
