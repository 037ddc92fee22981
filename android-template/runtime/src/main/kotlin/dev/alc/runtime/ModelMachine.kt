package dev.alc.runtime

import dev.alc.engine.BackendException

/**
 * A TVM virtual machine with a model's code: the functions of [library] whose names end in [suffix],
 * ready to be called. Takes over the library, also where the constructor throws.
 */
internal class ModelMachine(
    private val runtime: TVMRuntime,
    private val library: ModelLibrary,
    private val suffix: String,
) : AutoCloseable {
    private val frame = CallFrame()
    private val owned = ArrayList<OwnedHandle>()
    private val machine: Long

    init {
        try {
            val load = find(library.module, "vm_load_executable")
            machine = native("cannot start the model") {
                own(frame.begin().callForHandle(load))
            }
            val start = find(machine, "vm_initialization")
            native("cannot start the model") {
                frame.begin().int(CPU).int(0).int(POOLED_MEMORY).call(start)
            }
        } catch (failure: Throwable) {
            close()
            throw failure
        }
    }

    /** The function [name] of the variant; it lives as long as this. */
    fun function(name: String): Long = find(machine, name + suffix)

    /** The JSON document in which the compiler described the model. */
    fun metadata(): String {
        val describe = find(machine, "_metadata")
        return native("cannot read the model's description") {
            frame.begin().callForText(describe)
        }
    }

    override fun close() {
        owned.asReversed().forEach(OwnedHandle::close)
        owned.clear()
        library.close()
    }

    private fun find(module: Long, name: String): Long {
        val get = runtime.function("ffi.ModuleGetFunction")
        val found = native("cannot look up $name") {
            frame.begin().handle(module).text(name).bool(true).callForHandleOrNull(get)
        }
        if (found == 0L) throw BackendException("the model's library has no function $name")
        return own(found)
    }

    private fun own(handle: Long): Long = handle.also { owned.add(OwnedHandle(it)) }

    private companion object {
        private const val CPU = 1L
        private const val POOLED_MEMORY = 2L
    }
}

/** A reference to a native object, given back once. */
internal class OwnedHandle(val handle: Long) : AutoCloseable {
    private var closed = false

    override fun close() {
        if (!closed) NativeBindings.release(handle)
        closed = true
    }
}
