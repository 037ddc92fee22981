package dev.alc.engine

/**
 * The tokens of a vocabulary that have text, in the order of their bytes. Neighbours share their
 * beginnings, so all of them are tried as in a trie, each beginning once.
 */
internal class SortedTokens(tokenizer: Tokenizer) {
    private val ids: IntArray
    private val bytes: ByteArray
    private val ends: IntArray

    /** How many bytes of its beginning each token has in common with the one before it. */
    private val shared: IntArray
    private val longest: Int

    /** The most brackets that one token has of those that close, and of those that open. */
    val closes: Int
    val opens: Int

    init {
        // Before a token stands any other: only the first of a text may differ.
        val pieces = Array(tokenizer.vocabSize) { id ->
            if (tokenizer.isSpecial(id)) NOTHING else tokenizer.tokenBytes(id, previous = id)
        }
        ids = pieces.indices.filter { pieces[it].isNotEmpty() }
            .sortedWith { a, b -> compare(pieces[a], pieces[b]) }
            .toIntArray()
        ends = IntArray(ids.size)
        shared = IntArray(ids.size)
        bytes = ByteArray(ids.sumOf { pieces[it].size })
        var end = 0
        for (index in ids.indices) {
            val piece = pieces[ids[index]]
            piece.copyInto(bytes, end)
            end += piece.size
            ends[index] = end
            if (index > 0) shared[index] = common(pieces[ids[index - 1]], piece)
        }
        longest = pieces.maxOf { it.size }
        closes = pieces.maxOf { piece -> piece.count { it == '}'.code.toByte() || it == ']'.code.toByte() } }
        opens = pieces.maxOf { piece -> piece.count { it == '{'.code.toByte() || it == '['.code.toByte() } }
    }

    /** Puts the tokens that lead on from [start] into [into]; returns how many there are. */
    fun addFitting(start: JsonState, into: TokenSet): Int {
        // The states after each number of bytes of the token at hand.
        val after = Array(longest + 1) { JsonState() }
        after[0].set(start)
        var refused = Int.MAX_VALUE
        var count = 0
        for (index in ids.indices) {
            var length = shared[index]
            if (length >= refused) continue
            refused = Int.MAX_VALUE
            val begin = if (index == 0) 0 else ends[index - 1]
            val size = ends[index] - begin
            while (length < size) {
                val next = after[length + 1]
                next.set(after[length])
                length++
                if (!next.step(bytes[begin + length - 1])) {
                    refused = length
                    break
                }
            }
            if (refused == Int.MAX_VALUE) {
                into.add(ids[index])
                count++
            }
        }
        return count
    }

    private companion object {
        val NOTHING = ByteArray(0)

        fun common(a: ByteArray, b: ByteArray): Int {
            val size = minOf(a.size, b.size)
            for (at in 0 until size) if (a[at] != b[at]) return at
            return size
        }

        fun compare(a: ByteArray, b: ByteArray): Int {
            val at = common(a, b)
            return if (at < a.size && at < b.size) a[at] - b[at] else a.size - b.size
        }
    }
}
