package dev.alc.runtime.tokenizer

/**
 * The symbols of a piece on their way to tokens: always the pair of the lowest rank, of equal
 * ranks the leftmost, is merged, until no pair is left. Takes n log n time in the number of
 * symbols. Working memory, which grows to the longest piece; for one thread.
 */
internal abstract class SymbolChain {
    /** The symbols' tokens. */
    var ids = IntArray(0)
        private set

    /** The symbol behind each, [count] behind the last. */
    var next = IntArray(0)
        private set
    private var previous = IntArray(0)
    private var ranks = IntArray(0)
    private var results = IntArray(0)
    private val heap = LongHeap()

    /** How many symbols there were before any merge. */
    var count: Int = 0
        private set

    /** What the neighbours [left] and [right] merge to: rank << 32 | token, or [NO_MERGE]. */
    protected abstract fun merged(left: Int, right: Int): Long

    /** Makes room for [size] symbols. */
    open fun reserve(size: Int) {
        if (ids.size >= size) return
        val wanted = maxOf(2 * size, 64)
        ids = IntArray(wanted)
        next = IntArray(wanted)
        previous = IntArray(wanted)
        ranks = IntArray(wanted)
        results = IntArray(wanted)
    }

    /** Merges the first [size] of [ids]. */
    fun merge(size: Int) {
        count = size
        for (index in 0 until size) {
            next[index] = index + 1
            previous[index] = index - 1
        }
        for (index in 0 until size) look(index)
        while (heap.size > 0) {
            val top = heap.pop()
            val left = top.toInt()
            // The pair may have become another one since it was noted.
            if (ranks[left] != (top ushr 32).toInt()) continue
            val right = next[left]
            ids[left] = results[left]
            ranks[right] = NONE
            next[left] = next[right]
            if (next[left] < size) previous[next[left]] = left
            if (previous[left] >= 0) look(previous[left])
            look(left)
        }
    }

    /** Calls [action] with each symbol that is left, in order. */
    inline fun forEach(action: (symbol: Int) -> Unit) {
        var at = 0
        while (at < count) {
            action(at)
            at = next[at]
        }
    }

    private fun look(left: Int) {
        val right = next[left]
        val found = if (right < count) merged(left, right) else NO_MERGE
        if (found == NO_MERGE) {
            ranks[left] = NONE
            return
        }
        ranks[left] = (found ushr 32).toInt()
        results[left] = found.toInt()
        heap.push((found ushr 32) shl 32 or left.toLong())
    }

    companion object {
        const val NO_MERGE = -1L
        private const val NONE = -1
    }
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
