package dev.alc.runtime.tokenizer

import java.nio.ByteBuffer
import java.util.BitSet

/**
 * A normalization form of Unicode, by the tables in [payload];
 * https://www.unicode.org/reports/tr15/ has the algorithm.
 */
internal class UnicodeForm(payload: ByteBuffer) : Normalizer.Step {
    private val composes = payload.getInt() != 0
    private val decompositions = HashMap<Int, IntArray>()
    private val classes = HashMap<Int, Int>()
    private val compositions = HashMap<Long, Int>()

    /** Characters that may change; all others stay as they are. */
    private val active = BitSet(0x110000)

    init {
        repeat(payload.count(8)) {
            val point = payload.getInt()
            decompositions[point] = IntArray(payload.count(4)) { payload.getInt() }
            active.set(point)
        }
        repeat(payload.count(4)) {
            val entry = payload.getInt()
            classes[entry ushr 8] = entry and 0xff
            active.set(entry ushr 8)
        }
        repeat(payload.count(12)) {
            val first = payload.getInt()
            val second = payload.getInt()
            compositions[pair(first, second)] = payload.getInt()
            active.set(second)
        }
        if (composes) {
            active.set(VOWEL, VOWEL + VOWELS)
            active.set(TAIL, TAIL + TAILS)
        } else {
            active.set(SYLLABLE, SYLLABLE + SYLLABLES)
        }
    }

    override fun apply(text: String, place: Normalizer.Place): String {
        var changes = false
        text.forEachPoint { if (active[it]) changes = true }
        if (!changes) return text
        val points = IntList()
        text.forEachPoint { decompose(it, points) }
        order(points)
        if (composes) compose(points)
        val result = StringBuilder(points.size)
        for (index in 0 until points.size) result.appendCodePoint(points[index])
        return result.toString()
    }

    private fun decompose(point: Int, out: IntList) {
        if (point in SYLLABLE until SYLLABLE + SYLLABLES) {
            val index = point - SYLLABLE
            out.add(LEAD + index / (VOWELS * TAILS))
            out.add(VOWEL + index / TAILS % VOWELS)
            if (index % TAILS != 0) out.add(TAIL + index % TAILS)
            return
        }
        val parts = decompositions[point]
        if (parts == null) out.add(point) else parts.forEach(out::add)
    }

    /** Sorts each run of combining characters by class; equal ones keep their order. */
    private fun order(points: IntList) {
        var start = 0
        while (start < points.size) {
            var end = start
            while (end < points.size && classOf(points[end]) != 0) end++
            if (end - start > 1) {
                val sorted = (start until end).map { points[it] }.sortedBy(::classOf)
                for (index in sorted.indices) points[start + index] = sorted[index]
            }
            start = end + 1
        }
    }

    private fun compose(points: IntList) {
        var kept = 0
        var starter = -1
        for (index in 0 until points.size) {
            val point = points[index]
            val rank = classOf(point)
            // What stands between blocks, unless its class is lower.
            val reaches = starter == kept - 1 || kept > 0 && classOf(points[kept - 1]) < rank
            val composed = if (starter >= 0 && reaches) composed(points[starter], point) else null
            if (composed != null) {
                points[starter] = composed
                continue
            }
            if (rank == 0) starter = kept
            points[kept++] = point
        }
        points.truncate(kept)
    }

    private fun composed(first: Int, second: Int): Int? {
        val vowel = second - VOWEL
        if (first in LEAD until LEAD + LEADS && vowel in 0 until VOWELS) {
            return SYLLABLE + ((first - LEAD) * VOWELS + vowel) * TAILS
        }
        val index = first - SYLLABLE
        val tail = second - TAIL
        if (index in 0 until SYLLABLES && index % TAILS == 0 && tail in 1 until TAILS) {
            return first + tail
        }
        return compositions[pair(first, second)]
    }

    private fun classOf(point: Int): Int = classes[point] ?: 0

    private fun pair(first: Int, second: Int): Long = first.toLong() shl 32 or second.toLong()

    // Section 3.12 of the Unicode standard: how syllables of Hangul are numbered.
    private companion object {
        const val LEAD = 0x1100
        const val VOWEL = 0x1161
        const val TAIL = 0x11a7
        const val SYLLABLE = 0xac00
        const val LEADS = 19
        const val VOWELS = 21
        const val TAILS = 28
        const val SYLLABLES = LEADS * VOWELS * TAILS
    }
}
