package dev.alc.engine

/**
 * Tokens in the order of their bytes. Neighbours share their beginnings, so all of them are tried
 * as in a trie, each beginning once.
 *
 * @param tokens the ids, in any order.
 * @param pieces the bytes of each id, at least one.
 */
internal class SortedTokens(tokens: List<Int>, pieces: Array<ByteArray>) {
    /** In the order of their bytes. */
    val ids: IntArray = tokens.sortedWith { a, b -> compare(pieces[a], pieces[b]) }.toIntArray()

    private val bytes = ByteArray(ids.sumOf { pieces[it].size })

    /** Where in [bytes] each token ends. */
    private val ends = IntArray(ids.size)

    /** How many bytes of its beginning each token has in common with the one before it. */
    private val shared = IntArray(ids.size)
    private val longest = ids.maxOfOrNull { pieces[it].size } ?: 0

    init {
        var end = 0
        for (index in ids.indices) {
            val piece = pieces[ids[index]]
            piece.copyInto(bytes, end)
            end += piece.size
            ends[index] = end
            if (index > 0) shared[index] = common(pieces[ids[index - 1]], piece)
        }
    }

    /** Puts the tokens that lead on from [start] into [into]; returns how many there are. */
    fun addFitting(start: JsonState, into: TokenSet): Int {
        // The states after each number of bytes of the token at hand.
        val after = Array(longest + 1) { JsonState() }
        after[0].set(start)
        // A token that shares as many bytes with the one before it as that was refused for is
        // refused with it.
        var refused = Int.MAX_VALUE
        var count = 0
        for (index in ids.indices) {
            var length = shared[index]
            if (length >= refused) continue
            refused = Int.MAX_VALUE
            val begin = if (index == 0) 0 else ends[index - 1]
            val size = ends[index] - begin
            while (length < size && refused == Int.MAX_VALUE) {
                val next = after[length + 1]
                next.set(after[length])
                val fits = next.step(bytes[begin + length])
                length++
                if (!fits) refused = length
            }
            if (refused == Int.MAX_VALUE) {
                into.add(ids[index])
                count++
            }
        }
        return count
    }

    private companion object {
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
