package dev.alc.engine

import kotlin.math.abs

/**
 * The tokens among which one will be drawn, in the order of their ids: all or the best at first, and
 * fewer after each `keep`. What to keep is found digit by digit of the values, as a radix sort goes
 * about it, but going into one digit's tokens only: it takes a few passes over the tokens whatever the
 * values are, and nothing is sorted. Of equal values the lower id comes first. Between [weigh] and
 * [at] or [probabilities] there must be a `keep`, [keepPossible] at the least.
 *
 * @param scores by id: a logit until [weigh], then its distance to the best one divided by the
 *   temperature. The caller fills them.
 */
internal class Candidates(private val scores: FloatArray) {
    /** The first [size] are the tokens that are left, unless those are [all]. */
    private val ids = IntArray(scores.size)
    private var size = 0
    private var all = false

    /** By id: the probability relative to that of the best token, which has 1. */
    private val weights = FloatArray(scores.size)
    private val sums = DoubleArray(DIGITS)
    private val places = IntArray(minOf(Tops.PLACES, scores.size))

    /** The sum of the weights of those that are left. */
    private var mass = 0.0

    /** Takes every token. */
    fun fill() {
        size = ids.size
        all = true
    }

    /**
     * Takes the [count] best, with a look at few tokens: none of them is worse than the [count]th best
     * of the largest at each place, so they stand at places whose largest is not worse.
     *
     * @param tops see [Tops].
     */
    fun fillBest(count: Int, tops: FloatArray) {
        if (count >= tops.size) {
            fill()
        } else {
            size = tops.size
            all = false
            for (place in tops.indices) ids[place] = place
            keepFirst(tops, count.toDouble()) { 1f }
            var least = Float.POSITIVE_INFINITY
            for (index in 0 until size) least = minOf(least, tops[ids[index]])
            fillFrom(tops, least)
        }
        keepBest(count)
    }

    /** Takes every token whose score is not below [least]. */
    private fun fillFrom(tops: FloatArray, least: Float) {
        var places = 0
        for (place in tops.indices) if (tops[place] >= least) this.places[places++] = place
        size = 0
        for (start in scores.indices step tops.size) {
            for (index in 0 until places) {
                val id = start + this.places[index]
                if (id < scores.size && scores[id] >= least) ids[size++] = id
            }
        }
    }

    private fun keepBest(count: Int) {
        if (count < size) keepFirst(scores, count.toDouble()) { 1f }
    }

    /** Gives each its weight, which is zero if it is too small for a float. */
    fun weigh(best: Int, temperature: Float) {
        val top = scores[best]
        var sum = 0.0
        forEach { id ->
            val score = (scores[id] - top) / temperature
            val weight = Exponential.of(score)
            scores[id] = score
            weights[id] = weight
            sum += weight
        }
        mass = sum
    }

    /** Keeps those that have a weight. */
    fun keepPossible() {
        keepIf { weights[it] > 0f }
    }

    /** Keeps the fewest of the likeliest that have the [share] of all probability together. */
    fun keepNucleus(share: Float) {
        // Nearly all tokens are so unlikely that they are out even if they all are together: those left
        // reach the share without them. Half of it, as sums are rounded.
        val least = (1.0 - share) * mass / size / 2
        keepIf { weights[it] >= least }
        keepFirst(weights, share * mass) { weights[it] }
        sumWeights()
    }

    /** Keeps those with at least [share] of the probability of the best. */
    fun keepRelative(share: Float) {
        keepIf { weights[it] >= share }
        sumWeights()
    }

    /**
     * Keeps the fewest, of those whose information is nearest to the entropy, that have the
     * [share] of all probability together.
     */
    fun keepTypical(share: Float) {
        // With p = exp(score) / mass, information is ln(mass) - score and entropy is
        // ln(mass) - mean score: their difference needs no logarithm.
        var mean = 0.0
        forEach { mean += scores[it].toDouble() * weights[it] }
        mean /= mass
        forEach { scores[it] = -abs(scores[it] - mean).toFloat() }
        keepFirst(scores, share * mass) { weights[it] }
        sumWeights()
    }

    /** The token at [point], from 0 until 1, on a line of the probabilities in the ids' order. */
    fun at(point: Double): Int {
        var rest = point * mass
        for (index in 0 until size) {
            rest -= weights[ids[index]]
            if (rest < 0) return ids[index]
        }
        return ids[size - 1]
    }

    /** The probability of each that is left. */
    fun probabilities(): Map<Int, Double> =
        (0 until size).associate { ids[it] to weights[ids[it]] / mass }

    private fun sumWeights() {
        var sum = 0.0
        forEach { sum += weights[it] }
        mass = sum
    }

    private inline fun keepIf(condition: (Int) -> Boolean) {
        var kept = 0
        forEach { id -> if (condition(id)) ids[kept++] = id }
        size = kept
        all = false
    }

    /** Counting is faster than looking the ids up, and most of the work is on all of them. */
    private inline fun forEach(action: (Int) -> Unit) {
        if (all) {
            for (id in 0 until size) action(id)
        } else {
            for (index in 0 until size) action(ids[index])
        }
    }

    /** Keeps, from the largest of [values] downwards, the fewest whose [measure] reaches [target]. */
    private inline fun keepFirst(values: FloatArray, target: Double, measure: (Int) -> Float) {
        var sum = 0.0
        // The leading digits of the last key to keep, and a mask of what is known of it.
        var last = 0u
        var known = 0u
        for (shift in SHIFTS) {
            sums.fill(0.0)
            forEach { id ->
                val key = key(values[id])
                if (key and known == last) sums[(key shr shift).toInt() and DIGITS - 1] += measure(id)
            }
            var digit = 0
            while (digit < DIGITS - 1 && sum + sums[digit] < target) sum += sums[digit++]
            last = last or (digit.toUInt() shl shift)
            known = UInt.MAX_VALUE shl shift
            keepIf { key(values[it]) and known <= last }
        }
        keepIf { id -> key(values[id]) < last || (sum < target).also { sum += measure(id) } }
    }

    private companion object {
        /** Of 32 bits the first 12, the next 12, and the last 8, which come with 4 that are known. */
        val SHIFTS = intArrayOf(20, 8, 0)
        const val DIGITS = 1 shl 12

        /** Ascends as [value] descends; equal for equal values. */
        fun key(value: Float): UInt {
            // Makes a positive zero of a negative one, which compares equal to it.
            val bits = (value + 0f).toRawBits()
            return (bits shr 31).inv().and(Int.MAX_VALUE).xor(bits).toUInt()
        }
    }
}
