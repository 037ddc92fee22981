package dev.alc.runtime.tokenizer

/**
 * Which pairs of tokens merge, to what and in which order.
 *
 * @param merges left, right and resulting token of each merge, in order of rank.
 */
internal class MergeTable(merges: IntArray) {
    private val mask: Int
    private val pairs: LongArray
    private val ranks: IntArray
    private val results: IntArray

    init {
        results = IntArray(merges.size / 3) { merges[3 * it + 2] }
        var slots = 16
        while (slots < results.size + results.size / 2) slots *= 2
        mask = slots - 1
        pairs = LongArray(slots) { EMPTY }
        ranks = IntArray(slots)
        for (rank in results.indices) {
            val pair = pair(merges[3 * rank], merges[3 * rank + 1])
            var slot = slot(pair)
            while (pairs[slot] != EMPTY && pairs[slot] != pair) slot = (slot + 1) and mask
            // A pair that is listed twice keeps its last rank, as in the reference.
            pairs[slot] = pair
            ranks[slot] = rank
        }
    }

    /** Rank << 32 | token of the merge of two tokens, or [SymbolChain.NO_MERGE]. */
    fun find(left: Int, right: Int): Long {
        val pair = pair(left, right)
        var slot = slot(pair)
        while (pairs[slot] != pair) {
            if (pairs[slot] == EMPTY) return SymbolChain.NO_MERGE
            slot = (slot + 1) and mask
        }
        val rank = ranks[slot]
        return rank.toLong() shl 32 or results[rank].toLong()
    }

    private fun pair(left: Int, right: Int): Long = left.toLong() shl 32 or right.toLong()

    private fun slot(pair: Long): Int {
        val mixed = pair * -0x61c8864680b583ebL
        return (mixed ushr 32).toInt() and mask
    }

    /** Symbols that merge by this table. */
    inner class Chain : SymbolChain() {
        override fun merged(left: Int, right: Int): Long = find(ids[left], ids[right])
    }

    private companion object {
        const val EMPTY = -1L
    }
}
