package dev.alc.engine

import java.nio.FloatBuffer

/**
 * A session of the model and the tokens in it. After a computation that failed it is only good for
 * [close]. Confined to the decode thread.
 */
internal class Cache private constructor(
    private val session: ModelSession,
    private val watchdog: Watchdog,
    private var tokens: IntArray,
    size: Int,
) {
    /** Number of tokens. */
    var size: Int = size
        private set

    /** Whether a computation has failed. */
    var broken: Boolean = false
        private set

    /** Appends [batch]; the logits after its last token. */
    fun prefill(batch: IntArray): FloatBuffer = append(batch.size, { batch[it] }) { session.prefill(batch) }

    /** Appends [token]; the logits after it. */
    fun decode(token: Int): FloatBuffer = append(1, { token }) { session.decode(token) }

    /** Appends [batch]; the logits after each of its tokens. */
    fun verify(batch: IntArray): FloatBuffer = append(batch.size, { batch[it] }) { session.verify(batch) }

    /** Drops the tokens after those that [sequence] begins with too, at most [most] of it; what is left. */
    fun rewind(sequence: IntArray, most: Int = sequence.size): Int {
        var shared = 0
        val end = minOf(size, most)
        while (shared < end && tokens[shared] == sequence[shared]) shared++
        if (shared < size) {
            guarded { session.trim(shared) }
            size = shared
        }
        return shared
    }

    /** A second cache with the same tokens; the backend may share the memory. */
    fun fork(): Cache = Cache(watchdog.watch { session.fork() }, watchdog, tokens.copyOf(), size)

    /** Gives the session back. */
    fun close(): Unit = watchdog.watch { session.close() }

    private inline fun append(count: Int, token: (Int) -> Int, compute: () -> FloatBuffer): FloatBuffer {
        if (size + count > tokens.size) tokens = tokens.copyOf(maxOf(2 * tokens.size, size + count))
        val logits = guarded(compute)
        for (index in 0 until count) tokens[size++] = token(index)
        return logits
    }

    private inline fun <T> guarded(call: () -> T): T {
        broken = true
        return watchdog.watch(call).also { broken = false }
    }

    companion object {
        private const val INITIAL = 256

        /** An empty cache in a new session of [model]. */
        fun open(model: LoadedModel, watchdog: Watchdog): Cache =
            Cache(watchdog.watch { model.openSession() }, watchdog, IntArray(INITIAL), 0)
    }
}
