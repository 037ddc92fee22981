package dev.alc.engine

/** A set of token ids, one bit for each of a vocabulary of [vocabSize]. Starts empty. */
public class TokenSet(public val vocabSize: Int) {
    private val words = LongArray((vocabSize + Long.SIZE_BITS - 1) / Long.SIZE_BITS)

    /** Puts [id] (0 until [vocabSize]) into the set. */
    public fun add(id: Int) {
        words[id ushr WORD_SHIFT] = words[id ushr WORD_SHIFT] or (1L shl id)
    }

    /** Whether [id] (not negative) is in the set; one outside the vocabulary never is. */
    public operator fun contains(id: Int): Boolean =
        id < vocabSize && words[id ushr WORD_SHIFT] ushr id and 1L != 0L

    /** Takes everything out. */
    public fun clear(): Unit = words.fill(0)

    /** Makes the [scores], by id, of tokens that are not in the set minus infinity. */
    internal fun forbidOthers(scores: FloatArray) {
        for (start in scores.indices step Long.SIZE_BITS) {
            val word = words.getOrElse(start ushr WORD_SHIFT) { 0 }
            val end = minOf(start + Long.SIZE_BITS, scores.size)
            when (word) {
                -1L -> Unit
                0L -> scores.fill(Float.NEGATIVE_INFINITY, start, end)
                else -> for (id in start until end) {
                    if (word ushr id and 1L == 0L) scores[id] = Float.NEGATIVE_INFINITY
                }
            }
        }
    }

    private companion object {
        const val WORD_SHIFT = 6
    }
}

/**
 * Says which tokens an answer may go on with, such as those that keep it valid JSON. Serves one
 * answer; not safe for use from several threads.
 */
public interface TokenConstraint {
    /** Nothing may follow: the answer is complete. */
    public val finished: Boolean

    /**
     * The tokens that may come next, those that end an answer among them where it may end here.
     * Valid until the next call. Not empty while not [finished], unless the vocabulary has no
     * token that fits.
     */
    public fun allowed(): TokenSet

    /** The answer goes on with [token], one of [allowed]. */
    public fun accept(token: Int)
}
