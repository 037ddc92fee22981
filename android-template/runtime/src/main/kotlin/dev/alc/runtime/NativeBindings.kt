package dev.alc.runtime

import java.nio.ByteBuffer

/**
 * The native methods, one to one. `JNI_OnLoad` registers them by name and signature.
 *
 * Handles are raw pointers, so only [CallFrame], [TVMRuntime] and [TVMModule] use this object;
 * they see to it that a handle is neither used after its release nor by two threads. Every
 * method throws [NativeException] where the native code reports an error.
 */
internal object NativeBindings {
    /** Lines `tvm=...`, `abi=...`, `features=...` in UTF-8. */
    @JvmStatic
    external fun describe(): ByteArray

    /** An owned handle of a global function, or 0. */
    @JvmStatic
    external fun globalFunction(name: ByteArray): Long

    /** See [CallFrame]. Returns the bytes of a result that is a text or bytes, else null. */
    @JvmStatic
    external fun call(function: Long, frame: ByteBuffer, count: Int): ByteArray?

    /** Gives one reference of an object back. */
    @JvmStatic
    external fun release(handle: Long)

    /** Fills `[type, dim 0, dim 1, ...]` and returns the number of dimensions. */
    @JvmStatic
    external fun tensorShape(handle: Long, out: LongArray): Int

    /** A view of a CPU tensor's memory, without an owner. */
    @JvmStatic
    external fun tensorBuffer(handle: Long): ByteBuffer

    /** Maps a file of exactly [size] bytes and returns an owned handle of the mapping. */
    @JvmStatic
    external fun map(path: ByteArray, size: Long): Long

    /** Brings [length] bytes of a mapped file from [offset], where there are any, into the system's cache. */
    @JvmStatic
    external fun cache(mapping: Long, offset: Long, length: Long)

    /** Gives a mapping's handle back; its memory stays until the last tensor in it is released. */
    @JvmStatic
    external fun unmap(mapping: Long)

    /** An owned tensor over a mapping's bytes, which are not copied. */
    @JvmStatic
    external fun tensorInMapping(mapping: Long, offset: Long, type: Long, shape: LongArray): Long

    /** Sets the number of threads for kernels that this thread calls; returns what TVM took. */
    @JvmStatic
    external fun configureThreads(count: Int): Int

    /**
     * Keeps this thread and those that work for it on the [cores] with these numbers; false, and
     * nothing changes, where the system allows none of them.
     */
    @JvmStatic
    external fun keepOnCores(cores: IntArray): Boolean

    /** Handles that were given out and not released; tests find leaks by it. */
    @JvmStatic
    external fun heldHandles(): Long
}
