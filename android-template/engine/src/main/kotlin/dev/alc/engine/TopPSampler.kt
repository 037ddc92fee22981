package dev.alc.engine

import java.nio.FloatBuffer
import kotlin.math.exp

/**
 * Chooses tokens from logits.
 *
 * The steps, in this order: repetition penalty; at temperature 0 the token with the largest
 * logit (of equals the lowest id); else division by the temperature, top-k, softmax over what is
 * left, top-p, min-p relative to the likeliest token, and one draw from the probabilities that
 * remain. Of equally likely tokens the lower id counts as the likelier.
 *
 * Every filter keeps a prefix of the same order, so each is found as a threshold by selection in
 * linear time and nothing is sorted. Holds buffers of the size of the vocabulary; serves one
 * sequence at a time and is not safe for use from several threads.
 *
 * @param vocabSize number of logits.
 */
public class TopPSampler(private val options: SamplingOptions, private val vocabSize: Int) {
    private val random = SplitMix64(options.seed)
    private val logits = FloatArray(vocabSize)
    private val seen = if (options.repetitionPenalty == 1f) null else SeenTokens(vocabSize)
    private val weights = if (options.temperature > 0f) FloatArray(vocabSize) else NONE
    private val order = if (options.temperature > 0f) IntArray(vocabSize) else IntArray(0)

    /** Takes note that [token] is part of the sequence, for the repetition penalty. */
    public fun accept(token: Int) {
        seen?.add(token)
    }

    /**
     * The next token, given the [source] logits (`vocabSize` floats from position 0; read only).
     *
     * @throws LogitsException if a logit is NaN or no token has a finite logit.
     */
    public fun sample(source: FloatBuffer): Int {
        val best = read(source)
        if (options.temperature == 0f) return best
        val kept = weigh(best)
        var rest = random.nextDouble() * kept.mass
        var last = best
        for (id in 0 until vocabSize) {
            if (!kept.has(weights[id], id)) continue
            last = id
            rest -= weights[id]
            if (rest < 0) break
        }
        return last
    }

    /**
     * The probabilities that [sample] would draw from, for tests and displays: a map from token
     * to probability. Does not draw. Throws as [sample] does.
     */
    public fun distribution(source: FloatBuffer): Map<Int, Double> {
        val best = read(source)
        if (options.temperature == 0f) return mapOf(best to 1.0)
        val kept = weigh(best)
        return (0 until vocabSize)
            .filter { kept.has(weights[it], it) }
            .associateWith { weights[it] / kept.mass }
    }

    /** Copies and penalizes the logits; returns the best token. */
    private fun read(source: FloatBuffer): Int {
        if (source.limit() < vocabSize) {
            throw LogitsException("${source.limit()} logits for a vocabulary of $vocabSize")
        }
        source.position(0)
        source.get(logits)
        source.position(0)
        seen?.penalize(logits, options.repetitionPenalty)
        var best = -1
        var top = Float.NEGATIVE_INFINITY
        for (id in 0 until vocabSize) {
            val value = logits[id]
            if (value > top) {
                top = value
                best = id
            } else if (value.isNaN()) {
                throw LogitsException("the logit of token $id is not a number")
            }
        }
        if (best < 0) throw LogitsException("no token is possible: every logit is minus infinity")
        if (top == Float.POSITIVE_INFINITY) throw LogitsException("the logit of token $best is infinite")
        return best
    }

    /** Fills [weights] with unscaled probabilities and returns what the filters keep. */
    private fun weigh(best: Int): Kept {
        val top = logits[best]
        var cut = Cut.ALL
        if (options.topK in 1 until vocabSize) cut = kth(options.topK)
        var mass = 0.0
        for (id in 0 until vocabSize) {
            val inside = cut.keeps(logits[id], id)
            val weight = if (inside) exp((logits[id] - top) / options.temperature) else 0f
            weights[id] = weight
            mass += weight
        }
        cut = Cut.ALL
        if (options.topP < 1f) cut = nucleus(mass * options.topP)
        // The likeliest token weighs 1, so minP is itself the least weight.
        if (options.minP > cut.least) cut = Cut(options.minP, vocabSize)
        mass = 0.0
        for (id in 0 until vocabSize) if (cut.keeps(weights[id], id)) mass += weights[id]
        return Kept(cut, mass)
    }

    /** The threshold that keeps the [count] largest logits. */
    private fun kth(count: Int): Cut {
        for (id in order.indices) order[id] = id
        var from = 0
        var until = vocabSize
        while (true) {
            val middle = partition(logits, from, until)
            when {
                middle == count - 1 -> return Cut(logits[order[middle]], order[middle])
                middle >= count -> until = middle
                else -> from = middle + 1
            }
        }
    }

    /** The threshold that keeps the fewest of the likeliest tokens that weigh [target] together. */
    private fun nucleus(target: Double): Cut {
        for (id in order.indices) order[id] = id
        var from = 0
        var until = vocabSize
        var before = 0.0
        while (until - from > 1) {
            val middle = partition(weights, from, until)
            var left = 0.0
            for (index in from until middle) left += weights[order[index]]
            if (before + left >= target && middle > from) {
                until = middle
            } else if (before + left + weights[order[middle]] >= target || middle + 1 == until) {
                return Cut(weights[order[middle]], order[middle])
            } else {
                before += left + weights[order[middle]]
                from = middle + 1
            }
        }
        return Cut(weights[order[from]], order[from])
    }

    /**
     * Orders `order[from, until)` around one of its entries, larger values first, and returns
     * where that entry came to lie.
     */
    private fun partition(values: FloatArray, from: Int, until: Int): Int {
        val last = until - 1
        swap(medianOfThree(values, from, (from + last) ushr 1, last), last)
        val pivot = order[last]
        val pivotValue = values[pivot]
        var boundary = from
        for (index in from until last) {
            val id = order[index]
            val value = values[id]
            if (value > pivotValue || (value == pivotValue && id < pivot)) swap(index, boundary++)
        }
        swap(boundary, last)
        return boundary
    }

    private fun medianOfThree(values: FloatArray, a: Int, b: Int, c: Int): Int {
        val ab = before(values, a, b)
        val bc = before(values, b, c)
        val ac = before(values, a, c)
        return if (ab == bc) b else if (ab == ac) c else a
    }

    private fun before(values: FloatArray, a: Int, b: Int): Boolean {
        val first = order[a]
        val second = order[b]
        return values[first] > values[second] || (values[first] == values[second] && first < second)
    }

    private fun swap(a: Int, b: Int) {
        val held = order[a]
        order[a] = order[b]
        order[b] = held
    }

    /** Keeps values above [least], and of those equal to it the ids up to [lastId]. */
    private class Cut(val least: Float, private val lastId: Int) {
        fun keeps(value: Float, id: Int): Boolean = value > least || (value == least && id <= lastId)

        companion object {
            val ALL = Cut(Float.NEGATIVE_INFINITY, Int.MAX_VALUE)
        }
    }

    private class Kept(private val cut: Cut, val mass: Double) {
        fun has(weight: Float, id: Int): Boolean = weight > 0f && cut.keeps(weight, id)
    }

    private companion object {
        val NONE = FloatArray(0)
    }
}

/** The tokens of a sequence, each once, in the order in which they first came. */
private class SeenTokens(vocabSize: Int) {
    private val known = BooleanArray(vocabSize)
    private var ids = IntArray(256)
    private var count = 0

    fun add(token: Int) {
        if (known[token]) return
        known[token] = true
        if (count == ids.size) ids = ids.copyOf(2 * count)
        ids[count++] = token
    }

    fun penalize(logits: FloatArray, penalty: Float) {
        for (index in 0 until count) {
            val value = logits[ids[index]]
            logits[ids[index]] = if (value > 0f) value / penalty else value * penalty
        }
    }
}

/**
 * Steele, Lea and Flood's SplitMix64: a generator whose numbers are the same on every platform,
 * which `kotlin.random.Random` does not promise.
 */
internal class SplitMix64(private var state: Long) {
    fun nextLong(): Long {
        state += -0x61c8864680b583ebL
        var mixed = state
        mixed = (mixed xor (mixed ushr 30)) * -0x40a7b892e31b1a47L
        mixed = (mixed xor (mixed ushr 27)) * -0x6b2fb644ecceee15L
        return mixed xor (mixed ushr 31)
    }

    /** From 0 until 1, of 53 random bits. */
    fun nextDouble(): Double = (nextLong() ushr 11) * (1.0 / (1L shl 53))
}
