package dev.alc.runtime.tokenizer

/** Texts with their numbers, found along the characters of another text. Node 0 is the root. */
internal class Trie {
    private var keys = LongArray(256) { EMPTY }
    private var children = IntArray(256)
    private var values = IntArray(128) { NONE }
    private var nodes = 1

    /** Adds [text], which replaces what was added under it before. [value] is not negative. */
    fun add(text: String, value: Int) {
        var node = 0
        for (unit in text) {
            val known = child(node, unit)
            node = if (known != NONE) known else grow(node, unit)
        }
        values[node] = value
    }

    /** The node behind [node] along [unit], or [NONE]. */
    fun child(node: Int, unit: Char): Int {
        val key = key(node, unit)
        var slot = slot(key)
        while (keys[slot] != key) {
            if (keys[slot] == EMPTY) return NONE
            slot = (slot + 1) and (keys.size - 1)
        }
        return children[slot]
    }

    /** The node behind [node] along all of [text], or [NONE]. */
    fun walk(node: Int, text: String): Int {
        var at = node
        for (unit in text) {
            at = child(at, unit)
            if (at == NONE) return NONE
        }
        return at
    }

    /** The number of the text that ends at [node], or [NONE]. */
    fun value(node: Int): Int = values[node]

    /**
     * The longest text at [at] that ends by [until] and that [accept] takes with its number and
     * length: number << 32 | length, or 0 for none.
     */
    inline fun longest(
        text: String,
        at: Int,
        until: Int,
        accept: (value: Int, length: Int) -> Boolean = { _, _ -> true },
    ): Long {
        var node = 0
        var best = 0L
        for (index in at until until) {
            node = child(node, text[index])
            if (node == NONE) break
            val value = value(node)
            val length = index + 1 - at
            if (value != NONE && accept(value, length)) best = value.toLong() shl 32 or length.toLong()
        }
        return best
    }

    private fun grow(node: Int, unit: Char): Int {
        if (2 * nodes >= keys.size) rehash()
        if (nodes == values.size) {
            values = values.copyOf(2 * nodes)
            values.fill(NONE, nodes)
        }
        insert(key(node, unit), nodes)
        return nodes++
    }

    private fun rehash() {
        val oldKeys = keys
        val oldChildren = children
        keys = LongArray(2 * oldKeys.size) { EMPTY }
        children = IntArray(keys.size)
        for (slot in oldKeys.indices) {
            if (oldKeys[slot] != EMPTY) insert(oldKeys[slot], oldChildren[slot])
        }
    }

    private fun insert(key: Long, child: Int) {
        var slot = slot(key)
        while (keys[slot] != EMPTY) slot = (slot + 1) and (keys.size - 1)
        keys[slot] = key
        children[slot] = child
    }

    private fun key(node: Int, unit: Char): Long = node.toLong() shl 16 or unit.code.toLong()

    private fun slot(key: Long): Int {
        val mixed = key * -0x61c8864680b583ebL
        return (mixed ushr 32).toInt() and (keys.size - 1)
    }

    companion object {
        const val NONE = -1
        private const val EMPTY = -1L
    }
}
