package dev.alc.runtime

import kotlin.concurrent.thread

/**
 * Brings [files] into the system's cache, in their order, until all are there or this is closed.
 *
 * On a thread of its own, which looks at one page after the other: the model's first tokens are
 * computed meanwhile, from the first files. The kernel sees a file being read in order and reads
 * ahead as far as suits the disk, which asking it for pieces (`MADV_WILLNEED`) takes out of its
 * hands. Nothing stays mapped by it. A hint and no more: what cannot be read is refused where it is
 * needed.
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
                    NativeBindings.cache(mapping, offset, PIECE)
                }
            } finally {
                NativeBindings.unmap(mapping)
            }
        } catch (_: NativeException) {
            return
        }
    }

    private companion object {
        /** So little that closing need not wait. */
        const val PIECE = 1L shl 20
    }
}
