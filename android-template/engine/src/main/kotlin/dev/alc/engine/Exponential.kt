package dev.alc.engine

import kotlin.math.ln
import kotlin.math.pow

/**
 * e to the power of numbers that are not above zero, for softmax over a vocabulary: faster than
 * `kotlin.math.exp` of a float, and as exact but for the rounding of one result in a million.
 *
 * Cut into 2^n * 2^(j/[STEPS]) * e^r with a whole n, j from a table, and an r so small that its
 * series ends after the cube (P. T. P. Tang, "Table-driven implementation of the exponential
 * function in IEEE floating-point arithmetic", 1989).
 */
internal object Exponential {
    private const val STEPS_BITS = 8
    private const val STEPS = 1 shl STEPS_BITS
    private const val DOUBLE_FRACTION_BITS = 52

    /** Below it, the result is less than half of the smallest float. */
    private const val LEAST = -104f

    /** Added to a double, it leaves the nearest whole number in the low bits. */
    private const val TO_WHOLE = 1.5 * (1L shl DOUBLE_FRACTION_BITS)

    private val step = ln(2.0) / STEPS
    private val stepsToOne = STEPS / ln(2.0)
    private val powers = LongArray(STEPS) { 2.0.pow(it / STEPS.toDouble()).toRawBits() }

    /** e to the power of [x], which is at most 0 and no NaN. */
    fun of(x: Float): Float {
        if (x < LEAST) return 0f
        val shifted = x * stepsToOne + TO_WHOLE
        val steps = shifted.toRawBits()
        val r = x - (shifted - TO_WHOLE) * step
        // The whole n is added to the exponent of the power's bits.
        val exponent = steps shr STEPS_BITS shl DOUBLE_FRACTION_BITS
        val power = Double.fromBits(powers[steps.toInt() and STEPS - 1] + exponent)
        return (power * (1 + r * (1 + r * (1.0 / 2 + r * (1.0 / 6))))).toFloat()
    }
}
