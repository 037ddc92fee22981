package dev.alc.runtime.tokenizer

/** Finds tokens by their bytes. [accept] says which tokens are in it. */
internal class Vocabulary(private val data: TokenizerData, accept: (id: Int) -> Boolean) {
    private val ids: IntArray
    private val mask: Int

    /** Powers of [FACTOR], as many as the longest token has bytes and one more. */
    private val powers: LongArray

    init {
        val accepted = (0 until data.size).count { accept(it) }
        var slots = 16
        while (slots < 2 * accepted) slots *= 2
        mask = slots - 1
        ids = IntArray(slots) { TokenModel.NONE }
        var longest = 0
        for (id in 0 until data.size) {
            if (!accept(id)) continue
            longest = maxOf(longest, data.length(id))
            var slot = slot(hash(data.blob, data.start(id), data.end(id)))
            while (ids[slot] != TokenModel.NONE) slot = (slot + 1) and mask
            ids[slot] = id
        }
        powers = LongArray(longest + 1)
        powers[0] = 1
        for (power in 1..longest) powers[power] = powers[power - 1] * FACTOR
    }

    /** The token with the bytes `text[from, until)`, or [TokenModel.NONE]. */
    fun find(text: ByteArray, from: Int, until: Int): Int =
        if (until - from < powers.size) {
            find(text, from, until, hash(text, from, until))
        } else {
            TokenModel.NONE
        }

    /** The same in constant time, with [hashes] that [fill] made of the text. */
    fun find(text: ByteArray, from: Int, until: Int, hashes: LongArray): Int =
        if (until - from < powers.size) {
            find(text, from, until, hashes[until] - hashes[from] * powers[until - from])
        } else {
            TokenModel.NONE
        }

    /** Fills [hashes] with those of the first [count] beginnings of [text], the empty one first. */
    fun fill(text: ByteArray, count: Int, hashes: LongArray) {
        hashes[0] = 0
        for (at in 0 until count) hashes[at + 1] = hashes[at] * FACTOR + text[at] + OFFSET
    }

    private fun find(text: ByteArray, from: Int, until: Int, hash: Long): Int {
        var slot = slot(hash)
        while (true) {
            val id = ids[slot]
            if (id == TokenModel.NONE || matches(id, text, from, until)) return id
            slot = (slot + 1) and mask
        }
    }

    private fun matches(id: Int, text: ByteArray, from: Int, until: Int): Boolean {
        if (data.length(id) != until - from) return false
        val shift = data.start(id) - from
        for (at in from until until) if (data.blob[at + shift] != text[at]) return false
        return true
    }

    private fun hash(text: ByteArray, from: Int, until: Int): Long {
        var hash = 0L
        for (at in from until until) hash = hash * FACTOR + text[at] + OFFSET
        return hash
    }

    private fun slot(hash: Long): Int {
        val mixed = hash * -0x61c8864680b583ebL
        return (mixed ushr 32).toInt() and mask
    }

    private companion object {
        const val FACTOR = 0x5851f42d4c957f2dL

        /** So that no byte counts as nothing. */
        const val OFFSET = 129
    }
}
