package dev.alc.engine

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.ulp

class ExponentialTest {
    /** Floats from 0 to -110, of those that there are each [stride]th. */
    private fun values(stride: Int) = (0..110f.toRawBits() step stride).asSequence().map { -Float.fromBits(it) }

    @Test
    fun `it is what a double's exponential rounds to, but for one result in a million`() {
        var seen = 0
        var others = 0
        for (x in values(997)) {
            val expected = exp(x.toDouble()).toFloat()
            val found = Exponential.of(x)
            assertTrue("$x: $found, not $expected", abs(found - expected) <= expected.ulp)
            seen++
            if (found != expected) others++
        }
        assertTrue("$others of $seen", others <= seen / 1_000_000 + 1)
    }

    @Test
    fun `it never rises when its argument falls`() {
        var last = Float.POSITIVE_INFINITY
        for (x in values(4999)) {
            val found = Exponential.of(x)
            assertTrue("$x: $found after $last", found <= last)
            last = found
        }
    }

    @Test
    fun `of zero it is one, and of very little nothing`() {
        assertEquals(1f, Exponential.of(0f))
        assertEquals(1f, Exponential.of(-0f))
        assertEquals(0f, Exponential.of(Float.NEGATIVE_INFINITY))
        assertEquals(0f, Exponential.of(-Float.MAX_VALUE))
        assertEquals(Float.MIN_VALUE, Exponential.of(-103f))
    }
}
