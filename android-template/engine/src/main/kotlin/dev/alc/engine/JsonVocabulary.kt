package dev.alc.engine

/**
 * The tokens of a vocabulary that may stand behind another in JSON, those that are nothing but
 * text apart: inside a string they all fit, and there are the most of them.
 */
internal class JsonVocabulary(tokenizer: Tokenizer) {
    private val text: SortedTokens
    private val other: SortedTokens

    /** The most brackets that one token has of those that close, and of those that open. */
    private val closes: Int
    private val opens: Int

    init {
        // Before a token stands any other: only the first of an answer may differ.
        val pieces = Array(tokenizer.vocabSize) { id ->
            if (tokenizer.isSpecial(id)) NOTHING else tokenizer.tokenBytes(id, previous = id)
        }
        val (text, other) = pieces.indices.filter { pieces[it].isNotEmpty() }
            .partition { JsonState.isText(pieces[it]) }
        this.text = SortedTokens(text, pieces)
        this.other = SortedTokens(other, pieces)
        closes = pieces.maxOfOrNull { it.count { byte -> byte in CLOSING } } ?: 0
        opens = pieces.maxOfOrNull { it.count { byte -> byte in OPENING } } ?: 0
    }

    /** All on which [addFitting] depends. */
    fun outlook(state: JsonState): JsonState.Outlook = state.outlook(closes, opens)

    /** Puts the tokens that lead on from [state] into [into]; returns how many there are. */
    fun addFitting(state: JsonState, into: TokenSet): Int {
        if (!state.inText) return text.addFitting(state, into) + other.addFitting(state, into)
        text.ids.forEach(into::add)
        return text.ids.size + other.addFitting(state, into)
    }

    private companion object {
        val NOTHING = ByteArray(0)
        val CLOSING = "}]".toByteArray()
        val OPENING = "{[".toByteArray()
    }
}
