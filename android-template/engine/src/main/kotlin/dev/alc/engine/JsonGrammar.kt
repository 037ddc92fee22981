package dev.alc.engine

/**
 * Holds answers to JSON: says which tokens of a vocabulary lead on to one JSON object (RFC 8259).
 *
 * An answer that ends where it is `finished` is an object that every strict parser of JSON reads;
 * one that is cut short is the beginning of such an object. Between two lexemes stands at most one
 * blank, or a line feed and up to 32 blanks. Objects and arrays nest at most 64 deep; a number has
 * at most 20 digits before and behind its point and 2 in its exponent; `\u` escapes of surrogates
 * come in pairs. Names may repeat within an object. It does not hold answers to a schema.
 *
 * The bytes of a token may depend on whether it is the answer's first, not on which token is
 * before it. Control tokens are allowed only behind the object, and of these only [eosTokenIds].
 * As long as each byte is a token the answer can always go on.
 *
 * To make one takes time in proportion to the size of the vocabulary; make one for each model.
 * The masks of the last 128 kinds of places are kept. Safe to use from any thread.
 *
 * @param eosTokenIds the tokens that end an answer.
 */
public class JsonGrammar(private val tokenizer: Tokenizer, private val eosTokenIds: Set<Int>) {
    private val vocabSize = maxOf(tokenizer.vocabSize, 1 + (eosTokenIds.maxOrNull() ?: -1))
    private val vocabulary = JsonVocabulary(tokenizer)
    private val masks = Masks()
    private val last = TokenSet(vocabSize).apply { eosTokenIds.forEach(::add) }

    /**
     * The constraint of one answer. It is finished as soon as the object is closed; then
     * it allows the tokens that end an answer. The sets that it gives are shared and must not be
     * changed. Its `allowed` throws [LogitsException] where the vocabulary has no token that
     * leads on; its `accept` throws [IllegalArgumentException] for a token that does not.
     */
    public fun begin(): TokenConstraint = Answer()

    /** The first tokens of an answer, whose bytes may be others than further on. */
    private val first: TokenSet by lazy {
        mask(JsonState()) { set ->
            (0 until tokenizer.vocabSize).filter(::canBegin).onEach(set::add).size
        }
    }

    private fun canBegin(id: Int): Boolean {
        if (tokenizer.isSpecial(id)) return false
        val state = JsonState()
        val bytes = tokenizer.tokenBytes(id)
        return bytes.isNotEmpty() && bytes.all(state::step)
    }

    private fun further(state: JsonState): TokenSet {
        val outlook = vocabulary.outlook(state)
        return synchronized(masks) {
            masks.getOrPut(outlook) { mask(state) { vocabulary.addFitting(state, it) } }
        }
    }

    /** A set that [fill] puts tokens into, of which it returns the number. */
    private inline fun mask(state: JsonState, fill: (TokenSet) -> Int): TokenSet {
        val result = TokenSet(vocabSize)
        if (fill(result) == 0) {
            throw LogitsException("the vocabulary has no token with which JSON can go on (at $state)")
        }
        return result
    }

    private inner class Answer : TokenConstraint {
        private val state = JsonState()
        private var previous = Tokenizer.NO_TOKEN

        override val finished: Boolean
            get() = state.complete

        override fun allowed(): TokenSet = when {
            state.complete -> last
            previous == Tokenizer.NO_TOKEN -> first
            else -> further(state)
        }

        override fun accept(token: Int) {
            if (state.complete && token in eosTokenIds) return
            require(!tokenizer.isSpecial(token) && tokenizer.tokenBytes(token, previous).all(state::step)) {
                "token $token does not lead on to a JSON object (at $state)"
            }
            previous = token
        }
    }

    /** The masks that were used last, by all that they depend on. */
    private class Masks : LinkedHashMap<JsonState.Outlook, TokenSet>(16, 0.75f, true) {
        override fun removeEldestEntry(eldest: Map.Entry<JsonState.Outlook, TokenSet>?): Boolean =
            size > KEPT
    }

    private companion object {
        const val KEPT = 128
    }
}
