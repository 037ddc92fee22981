package dev.alc.engine

import kotlin.math.abs
import kotlin.math.exp

/**
 * The tokens among which one will be drawn: all with a finite score at first, and fewer after each
 * `keep`. The filters select by partitioning around random pivots, as quicksort does but into one
 * side only, so that each takes linear time whatever the scores are; nothing is sorted. Of equal
 * values the lower id comes first.
 *
 * @param scores by id: a logit until [weigh], then its distance to the best one divided by the
 *   temperature. The caller fills them.
 */
internal class Candidates(private val scores: FloatArray) {
    private val ids = IntArray(scores.size)

    /** By id: the probability relative to that of the best token, which has 1. */
    private val weights = FloatArray(scores.size)
    private val pivots = SplitMix64(0)
    private val marks = TokenSet(scores.size)
    private var size = 0
    private var ordered = true

    /** Takes every token whose score is not minus infinity. */
    fun fill() {
        size = 0
        ordered = true
        for (id in scores.indices) if (scores[id] > Float.NEGATIVE_INFINITY) ids[size++] = id
    }

    /** Keeps the [count] best. */
    fun keepBest(count: Int) {
        if (count < size) keepFirst(scores, count.toDouble()) { 1f }
    }

    /** Gives each its weight, and drops those whose weight is too small for a float. */
    fun weigh(best: Int, temperature: Float) {
        val top = scores[best]
        keepIf { id ->
            val score = (scores[id] - top) / temperature
            val weight = exp(score)
            scores[id] = score
            weights[id] = weight
            weight > 0f
        }
    }

    /** Keeps the fewest of the likeliest that have the [share] of all probability together. */
    fun keepNucleus(share: Float) {
        val mass = mass()
        // All that are below this would together not have the rest of the probability.
        val least = (1.0 - share) * mass / size
        keepIf { weights[it] >= least }
        keepFirst(weights, share * mass) { weights[it] }
    }

    /** Keeps those with at least [share] of the probability of the best. */
    fun keepRelative(share: Float) {
        keepIf { weights[it] >= share }
    }

    /**
     * Keeps the fewest, of those whose information is nearest to the entropy, that have the
     * [share] of all probability together.
     */
    fun keepTypical(share: Float) {
        // With p = exp(score) / mass, information is ln(mass) - score and entropy is
        // ln(mass) - mean score: their difference needs no logarithm.
        val mass = mass()
        var mean = 0.0
        for (index in 0 until size) mean += scores[ids[index]].toDouble() * weights[ids[index]]
        mean /= mass
        for (index in 0 until size) {
            val id = ids[index]
            scores[id] = -abs(scores[id] - mean).toFloat()
        }
        keepFirst(scores, share * mass) { weights[it] }
    }

    /** The token at [point], from 0 until 1, on a line of the probabilities in the ids' order. */
    fun at(point: Double): Int {
        order()
        var rest = point * mass()
        for (index in 0 until size) {
            rest -= weights[ids[index]]
            if (rest < 0) return ids[index]
        }
        return ids[size - 1]
    }

    /** The probability of each that is left. */
    fun probabilities(): Map<Int, Double> {
        order()
        val mass = mass()
        return (0 until size).associate { ids[it] to weights[ids[it]] / mass }
    }

    private fun mass(): Double {
        var sum = 0.0
        for (index in 0 until size) sum += weights[ids[index]]
        return sum
    }

    private inline fun keepIf(condition: (Int) -> Boolean) {
        var kept = 0
        for (index in 0 until size) {
            val id = ids[index]
            if (condition(id)) ids[kept++] = id
        }
        size = kept
    }

    /** Keeps, from the largest of [values] downwards, the fewest whose [measure] reaches [target]. */
    private inline fun keepFirst(values: FloatArray, target: Double, measure: (Int) -> Float) {
        ordered = false
        var from = 0
        var until = size
        var before = 0.0
        // The last to keep is in ids[from, until), or is the one behind; ids[0, from) measure `before`.
        while (from < until) {
            val middle = partition(values, from, until)
            var reached = before
            for (index in from..middle) reached += measure(ids[index])
            if (reached >= target) {
                until = middle
            } else {
                before = reached
                from = middle + 1
            }
        }
        size = minOf(from + 1, size)
    }

    /**
     * Orders `ids[from, until)` around one of its entries, larger values first, and returns
     * where that entry came to lie.
     */
    private fun partition(values: FloatArray, from: Int, until: Int): Int {
        val last = until - 1
        swap(pivot(values, from, until), last)
        val pivot = ids[last]
        val pivotValue = values[pivot]
        var boundary = from
        for (index in from until last) {
            val id = ids[index]
            val value = values[id]
            if (value > pivotValue || (value == pivotValue && id < pivot)) swap(index, boundary++)
        }
        swap(boundary, last)
        return boundary
    }

    /** The median of three entries, which random places keep from being the same bad ones each time. */
    private fun pivot(values: FloatArray, from: Int, until: Int): Int {
        val a = from + pivots.nextInt(until - from)
        val b = from + pivots.nextInt(until - from)
        val c = from + pivots.nextInt(until - from)
        val ab = precedes(values, a, b)
        val bc = precedes(values, b, c)
        val ac = precedes(values, a, c)
        return if (ab == bc) b else if (ab == ac) c else a
    }

    private fun precedes(values: FloatArray, a: Int, b: Int): Boolean {
        val first = ids[a]
        val second = ids[b]
        return values[first] > values[second] || (values[first] == values[second] && first < second)
    }

    private fun swap(a: Int, b: Int) {
        val held = ids[a]
        ids[a] = ids[b]
        ids[b] = held
    }

    /** Brings the ids into ascending order, through a set of bits: in linear time. */
    private fun order() {
        if (ordered) return
        marks.clear()
        for (index in 0 until size) marks.add(ids[index])
        size = 0
        marks.forEach { ids[size++] = it }
        ordered = true
    }
}
