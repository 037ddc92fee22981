package dev.alc.engine

/**
 * The repetition, frequency and presence penalties of one sequence. Takes time in proportion to
 * the distinct tokens of the sequence, not to its length and not to the vocabulary.
 */
internal class Penalties(private val options: SamplingOptions, vocabSize: Int) {
    private val known = BooleanArray(vocabSize)
    private val answered = IntArray(vocabSize)
    private var distinct = IntArray(256)
    private var size = 0

    /** [token] is part of the sequence, but not of the answer. */
    fun prompt(token: Int) {
        if (known[token]) return
        known[token] = true
        if (size == distinct.size) distinct = distinct.copyOf(2 * size)
        distinct[size++] = token
    }

    /** [token] is the next one of the answer. */
    fun accept(token: Int) {
        prompt(token)
        answered[token]++
    }

    fun applyTo(logits: FloatArray) {
        for (index in 0 until size) {
            val token = distinct[index]
            val logit = logits[token]
            val repeated =
                if (logit > 0f) logit / options.repetitionPenalty else logit * options.repetitionPenalty
            val count = answered[token]
            logits[token] =
                if (count == 0) repeated
                else repeated - (count * options.frequencyPenalty + options.presencePenalty)
        }
    }

    companion object {
        /** The penalties that [options] ask for, or null if none. */
        fun of(options: SamplingOptions, vocabSize: Int): Penalties? = Penalties(options, vocabSize).takeIf {
            options.repetitionPenalty != 1f || options.frequencyPenalty != 0f || options.presencePenalty != 0f
        }
    }
}
