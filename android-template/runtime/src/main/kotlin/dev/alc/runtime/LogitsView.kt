package dev.alc.runtime

import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * The logits of a model's newest forward pass, shown in place.
 *
 * The tensor is kept until the next one is shown. Whoever still holds a view when the model is
 * closed may read it without harm: the memory is released only when no view can be reached.
 */
internal class LogitsView {
    private var tensor = 0L
    private var view: FloatBuffer? = null

    /** Takes over the float32 tensor [handle] and shows its [count] floats. */
    fun show(handle: Long, count: Int): FloatBuffer {
        clear()
        tensor = handle
        val buffer = NativeBindings.tensorBuffer(handle).order(ByteOrder.nativeOrder())
        if (buffer.capacity() != count * Float.SIZE_BYTES) {
            throw NativeException(
                "ValueError",
                "logits have ${buffer.capacity()} bytes, expected $count floats",
                "",
            )
        }
        return buffer.asFloatBuffer().also { view = it }
    }

    /** Releases the tensor, as nobody may use its view any more. */
    fun clear() {
        if (tensor != 0L) NativeBindings.release(tensor)
        tensor = 0
        view = null
    }

    /** Leaves the tensor to the garbage collector, which knows whether a view is still held. */
    fun retire() {
        val last = view
        if (last == null) clear() else left.add(Left(last, tensor))
        tensor = 0
        view = null
        sweep()
    }

    private class Left(view: FloatBuffer, val tensor: Long) :
        PhantomReference<FloatBuffer>(view, queue)

    companion object {
        private val queue = ReferenceQueue<FloatBuffer>()
        private val left: MutableSet<Left> = java.util.Collections.synchronizedSet(HashSet())

        /** Releases what was left to the garbage collector and has been collected. */
        fun sweep() {
            while (true) {
                val gone = queue.poll() as Left? ?: return
                left.remove(gone)
                NativeBindings.release(gone.tensor)
            }
        }
    }
}
