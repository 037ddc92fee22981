package dev.alc.engine

/** The answer as it grows: its tokens and its text. */
internal class Answer(tokenizer: Tokenizer, maxTokens: Int) {
    private val detokenizer = StreamingDetokenizer(tokenizer)
    private val builder = StringBuilder()
    private var tokens = IntArray(minOf(maxTokens, INITIAL))

    /** Number of tokens. */
    var size: Int = 0
        private set

    val text: String
        get() = builder.toString()

    fun ids(): IntArray = tokens.copyOf(size)

    /** Adds [token], available at [nanos]; the event that says so. */
    fun add(token: Int, nanos: Long): GenerationEvent.Tokens {
        if (size == tokens.size) tokens = tokens.copyOf(2 * size)
        tokens[size] = token
        val piece = detokenizer.add(token)
        builder.append(piece)
        return GenerationEvent.Tokens(size++, intArrayOf(token), longArrayOf(nanos), piece)
    }

    /** What is left of an incomplete character, if anything. */
    fun rest(): GenerationEvent.Tokens? {
        val piece = detokenizer.finish()
        builder.append(piece)
        return if (piece.isEmpty()) null else GenerationEvent.Tokens(size, IntArray(0), LongArray(0), piece)
    }

    private companion object {
        const val INITIAL = 256
    }
}
