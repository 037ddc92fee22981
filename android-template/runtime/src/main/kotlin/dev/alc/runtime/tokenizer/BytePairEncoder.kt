package dev.alc.runtime.tokenizer

/**
 * Merges the bytes of a piece into tokens: always the pair of the lowest rank, of equal ranks the
 * leftmost, until no pair is left. Takes n log n time in the length of the piece. Immutable; the
 * working memory is in [Scratch].
 */
internal class BytePairEncoder(data: TokenizerData) {
    private val byteTokens = IntArray(256) { NONE }
    private val mask: Int
    private val pairs: LongArray
    private val ranks: IntArray
    private val results: IntArray

    init {
        for (id in 0 until data.size) {
            if (data.isNormal(id) && data.length(id) == 1) byteTokens[data.singleByte(id)] = id
        }
        results = IntArray(data.merges.size / 3) { data.merges[3 * it + 2] }
        var slots = 16
        while (slots < 2 * results.size) slots *= 2
        mask = slots - 1
        pairs = LongArray(slots) { EMPTY }
        ranks = IntArray(slots)
        for (rank in results.indices) {
            val pair = pair(data.merges[3 * rank], data.merges[3 * rank + 1])
            var slot = slot(pair)
            while (pairs[slot] != EMPTY && pairs[slot] != pair) slot = (slot + 1) and mask
            // A pair that is listed twice keeps its last rank, as in the reference.
            pairs[slot] = pair
            ranks[slot] = rank
        }
    }

    /** Adds the tokens of `text[from, until)` to [out]. */
    fun encode(text: String, from: Int, until: Int, scratch: Scratch, out: IntList) {
        val count = bytes(text, from, until, scratch)
        if (count > 1) merge(count, scratch)
        var at = 0
        while (at < count) {
            out.add(scratch.ids[at])
            at = scratch.next[at]
        }
    }

    /** Fills the scratch with one symbol for each byte that has a token; others add nothing. */
    private fun bytes(text: String, from: Int, until: Int, scratch: Scratch): Int {
        scratch.reserve(3 * (until - from))
        var count = 0
        fun add(byte: Int) {
            val id = byteTokens[byte and 0xff]
            if (id != NONE) scratch.ids[count++] = id
        }
        var at = from
        while (at < until) {
            val unit = text[at++]
            if (unit.code < 0x80) {
                add(unit.code)
                continue
            }
            var point = unit.code
            if (unit.isSurrogate()) {
                val paired = unit.isHighSurrogate() && at < until && text[at].isLowSurrogate()
                point = if (paired) Character.toCodePoint(unit, text[at++]) else Gpt2Splitter.REPLACEMENT
            }
            when {
                point < 0x800 -> add(0xc0 or (point shr 6))
                point < 0x10000 -> {
                    add(0xe0 or (point shr 12))
                    add(0x80 or ((point shr 6) and 0x3f))
                }
                else -> {
                    add(0xf0 or (point shr 18))
                    add(0x80 or ((point shr 12) and 0x3f))
                    add(0x80 or ((point shr 6) and 0x3f))
                }
            }
            add(0x80 or (point and 0x3f))
        }
        for (index in 0 until count) {
            scratch.next[index] = index + 1
            scratch.previous[index] = index - 1
        }
        return count
    }

    private fun merge(count: Int, scratch: Scratch) {
        val ids = scratch.ids
        val next = scratch.next
        val previous = scratch.previous
        val heap = scratch.heap
        for (index in 0 until count - 1) push(heap, ids[index], ids[index + 1], index)
        while (heap.size > 0) {
            val top = heap.pop()
            val rank = (top ushr 32).toInt()
            val left = top.toInt()
            val right = next[left]
            // Either may have been merged since the pair was noted.
            if (ids[left] == NONE || right >= count || rank(ids[left], ids[right]) != rank) continue
            ids[left] = results[rank]
            ids[right] = NONE
            next[left] = next[right]
            if (next[left] < count) {
                previous[next[left]] = left
                push(heap, ids[left], ids[next[left]], left)
            }
            if (previous[left] >= 0) push(heap, ids[previous[left]], ids[left], previous[left])
        }
    }

    private fun push(heap: LongHeap, left: Int, right: Int, at: Int) {
        val rank = rank(left, right)
        if (rank != NONE) heap.push(rank.toLong() shl 32 or at.toLong())
    }

    private fun rank(left: Int, right: Int): Int {
        val pair = pair(left, right)
        var slot = slot(pair)
        while (pairs[slot] != pair) {
            if (pairs[slot] == EMPTY) return NONE
            slot = (slot + 1) and mask
        }
        return ranks[slot]
    }

    private fun pair(left: Int, right: Int): Long = left.toLong() shl 32 or right.toLong()

    private fun slot(pair: Long): Int {
        val mixed = pair * -0x61c8864680b583ebL
        return (mixed ushr 32).toInt() and mask
    }

    /** Working memory for one encoding at a time; grows to the longest piece. */
    class Scratch {
        var ids = IntArray(0)
            private set
        var next = IntArray(0)
            private set
        var previous = IntArray(0)
            private set
        val heap = LongHeap()

        fun reserve(size: Int) {
            if (ids.size >= size) return
            val wanted = maxOf(2 * size, 64)
            ids = IntArray(wanted)
            next = IntArray(wanted)
            previous = IntArray(wanted)
        }
    }

    private companion object {
        const val NONE = -1
        const val EMPTY = -1L
    }
}

/** A growing list of ints. */
internal class IntList {
    private var values = IntArray(64)

    var size: Int = 0
        private set

    fun add(value: Int) {
        if (size == values.size) values = values.copyOf(2 * size)
        values[size++] = value
    }

    fun toArray(): IntArray = values.copyOf(size)
}

/** A heap that gives the smallest long first. */
internal class LongHeap {
    private var values = LongArray(64)

    var size: Int = 0
        private set

    fun push(value: Long) {
        if (size == values.size) values = values.copyOf(2 * size)
        var at = size++
        while (at > 0) {
            val parent = (at - 1) ushr 1
            if (values[parent] <= value) break
            values[at] = values[parent]
            at = parent
        }
        values[at] = value
    }

    fun pop(): Long {
        val top = values[0]
        val last = values[--size]
        var at = 0
        while (true) {
            var child = 2 * at + 1
            if (child >= size) break
            if (child + 1 < size && values[child + 1] < values[child]) child++
            if (values[child] >= last) break
            values[at] = values[child]
            at = child
        }
        values[at] = last
        return top
    }
}
