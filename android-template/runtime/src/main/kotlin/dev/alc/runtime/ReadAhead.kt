package dev.alc.runtime

import kotlin.concurrent.thread

/**
 * Has the kernel read [files] ahead, in their order, until all is asked for or this is closed.
 *
 * On a thread of its own, as it waits where the disk has more to do than it takes at once: the
 * model's first tokens are computed meanwhile, from the first files. A hint and no more: what
 * cannot be read is refused where it is needed.
 */
internal class ReadAhead(private val files: List<ModelFiles.Entry>) : AutoCloseable {
    @Volatile
    private var closed = false
    private val reader = thread(isDaemon = true, name = "alc-read-ahead") { files.forEach(::read) }

    /** Stops, and returns when the thread has ended. */
    override fun close() {
        closed = true
        reader.join()
    }

    private fun read(entry: ModelFiles.Entry) {
        if (closed) return
        try {
            val mapping = NativeBindings.map(entry.file.path.toByteArray(), entry.size)
            try {
                for (offset in 0 until entry.size step PIECE) {
                    if (closed) return
                    NativeBindings.prefetch(mapping, offset, PIECE)
                }
            } finally {
                NativeBindings.unmap(mapping)
            }
        } catch (_: NativeException) {
            return
        }
    }

    private companion object {
        /** Linux's window, unless it was set otherwise: it reads no more for one request, however large. */
        const val PIECE = 128L shl 10
    }
}
