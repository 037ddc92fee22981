package dev.alc.engine

/** The answer as it grows: its tokens, and its text up to the first of the [stops]. */
internal class Answer(private val tokenizer: Tokenizer, maxTokens: Int, stops: List<String>) {
    private val detokenizer = StreamingDetokenizer(tokenizer)
    private val matcher = if (stops.isEmpty()) null else StopMatcher(stops)
    private val said = StringBuilder()
    private val given = StringBuilder()
    private var tokens = IntArray(minOf(maxTokens, INITIAL))

    // ends[n]: how much of what is said the tokens up to the n-th take, at the least.
    private var ends = IntArray(tokens.size)

    /** Number of tokens. */
    var size: Int = 0
        private set

    /** What was given out. */
    val text: String
        get() = given.toString()

    /** Whether a stop has come. */
    val stopped: Boolean
        get() = matcher != null && matcher.found

    /** Adds [token], available at [nanos]; the event that says so. */
    fun add(token: Int, nanos: Long): GenerationEvent.Tokens {
        if (size == tokens.size) {
            tokens = tokens.copyOf(2 * size)
            ends = ends.copyOf(2 * size)
        }
        val piece = give(detokenizer.add(token))
        tokens[size] = token
        // A character that is not complete will take one place or more.
        ends[size] = said.length + if (detokenizer.midCharacter) 1 else 0
        return GenerationEvent.Tokens(size++, intArrayOf(token), longArrayOf(nanos), piece)
    }

    /** What is left when no more tokens come: half a character, and what might have become a stop. */
    fun rest(): GenerationEvent.Tokens? {
        var piece = give(detokenizer.finish())
        if (matcher != null) piece += matcher.rest().also(given::append)
        return if (piece.isEmpty()) null else GenerationEvent.Tokens(size, IntArray(0), LongArray(0), piece)
    }

    /**
     * Tokens that say [text] and no more: those of the model as far as they lie wholly before the
     * stop, and then the tokens of the letters that are left.
     */
    fun tokensOfText(): IntArray {
        if (!stopped) return tokens.copyOf(size)
        var whole = size
        while (whole > 0 && ends[whole - 1] > given.length) whole--
        val left = given.substring(if (whole == 0) 0 else ends[whole - 1])
        val kept = tokens.copyOf(whole)
        return if (left.isEmpty()) kept else kept + tokenizer.encode(MarkedText(left, emptyList(), continues = true))
    }

    private fun give(piece: String): String {
        said.append(piece)
        val certain = if (matcher == null) piece else matcher.add(piece)
        given.append(certain)
        return certain
    }

    private companion object {
        const val INITIAL = 256
    }
}
