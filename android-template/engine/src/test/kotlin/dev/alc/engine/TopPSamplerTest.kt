package dev.alc.engine

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.nio.FloatBuffer
import kotlin.math.exp
import kotlin.math.ln
import kotlin.random.Random

class TopPSamplerTest {
    private fun buffer(vararg logits: Float): FloatBuffer = FloatBuffer.wrap(logits)

    private fun sample(options: SamplingOptions, vararg logits: Float): Int =
        TopPSampler(options, logits.size).sample(buffer(*logits))

    /** The same rules by full sorting, in double precision. */
    private fun reference(options: SamplingOptions, logits: FloatArray): Map<Int, Double> {
        var ids = logits.indices.sortedWith(compareByDescending<Int> { logits[it] }.thenBy { it })
        if (options.topK > 0) ids = ids.take(options.topK)
        val weights = ids.map { exp((logits[it] - logits[ids[0]]).toDouble() / options.temperature) }
        val total = weights.sum()
        var sum = 0.0
        var count = if (options.topP == 1f) ids.size else 0
        while (count < ids.size && (count == 0 || sum < options.topP * total)) sum += weights[count++]
        val kept = (0 until count).filter { weights[it] >= options.minP }
        val mass = kept.sumOf { weights[it] }
        return kept.associate { ids[it] to weights[it] / mass }
    }

    @Test
    fun `greedy takes the largest, of equals the lowest id`() {
        assertEquals(2, sample(SamplingOptions(), 0f, -1f, 5f, 4f))
        assertEquals(1, sample(SamplingOptions(), 0f, 5f, 5f, 5f))
        assertEquals(1, sample(SamplingOptions(), Float.NEGATIVE_INFINITY, -1e30f))
    }

    @Test
    fun `random filters keep what full sorting keeps`() {
        val random = Random(7)
        repeat(400) { round ->
            val size = random.nextInt(1, 400)
            val ties = random.nextBoolean()
            val logits = FloatArray(size) {
                val value = (random.nextFloat() - 0.5f) * 12
                if (ties) Math.round(value).toFloat() else value
            }
            val options = SamplingOptions(
                temperature = random.nextFloat() * 2 + 0.05f,
                topP = if (random.nextBoolean()) 1f else random.nextFloat() * 0.98f + 0.01f,
                topK = if (random.nextBoolean()) 0 else random.nextInt(1, size + 10),
                minP = if (random.nextBoolean()) 0f else random.nextFloat() * 0.5f,
            )
            val expected = reference(options, logits)
            val actual = TopPSampler(options, size).distribution(buffer(*logits))
            // What is too unlikely for a float is never drawn.
            val likely = { kept: Map<Int, Double> -> kept.filterValues { it > 1e-35 }.keys }
            assertEquals("round $round", likely(expected), likely(actual))
            for ((id, probability) in actual) assertEquals(expected.getValue(id), probability, 1e-5)
        }
    }

    @Test
    fun `draws follow the distribution`() {
        val random = Random(3)
        val logits = FloatArray(40) { (random.nextFloat() - 0.5f) * 6 }
        val options = SamplingOptions(temperature = 0.9f, topP = 0.95f, seed = 11)
        val sampler = TopPSampler(options, logits.size)
        val draws = 40_000
        val counts = IntArray(logits.size)
        repeat(draws) { counts[sampler.sample(buffer(*logits))]++ }
        val expected = reference(options, logits)
        assertTrue(counts.indices.all { counts[it] == 0 || it in expected })
        val square = expected.entries.sumOf { (id, probability) ->
            val mean = probability * draws
            (counts[id] - mean) * (counts[id] - mean) / mean
        }
        // Wilson and Hilferty: the 99.9 % point of chi-square with n degrees of freedom.
        val n = expected.size - 1.0
        val limit = n * Math.pow(1 - 2 / (9 * n) + 3.09 * Math.sqrt(2 / (9 * n)), 3.0)
        assertTrue("chi-square $square above $limit", square < limit)
    }

    @Test
    fun `equal seeds give equal draws and other seeds others`() {
        val logits = FloatArray(100) { ln(1f + it) }
        fun draws(seed: Long) = TopPSampler(SamplingOptions(temperature = 1f, seed = seed), 100)
            .let { sampler -> List(50) { sampler.sample(buffer(*logits)) } }
        assertEquals(draws(5), draws(5))
        assertTrue(draws(5) != draws(6))
    }

    @Test
    fun `the generator is SplitMix64`() {
        // The first outputs for the seed 1234567 as in the reference implementation.
        val generator = SplitMix64(1234567)
        val expected = listOf(
            "6457827717110365317", "3203168211198807973", "9817491932198370423",
            "4593380528125082431", "16408922859458223821",
        )
        assertEquals(expected, List(5) { generator.nextLong().toULong().toString() })
    }

    @Test
    fun `repetition penalty makes seen tokens less likely whatever their sign`() {
        val sampler = TopPSampler(SamplingOptions(repetitionPenalty = 2f), 4)
        val logits = floatArrayOf(3f, 2f, -1f, -1.5f)
        assertEquals(0, sampler.sample(buffer(*logits)))
        sampler.accept(0)
        sampler.accept(0)
        assertEquals(1, sampler.sample(buffer(*logits)))
        sampler.accept(1)
        assertEquals(0, sampler.sample(buffer(*logits)))
        val negative = TopPSampler(SamplingOptions(repetitionPenalty = 2f), 2)
        negative.accept(0)
        assertEquals(1, negative.sample(buffer(-1f, -1.5f)))
    }

    @Test
    fun `logits without a sensible answer are errors`() {
        val infinite = Float.NEGATIVE_INFINITY
        for (temperature in listOf(0f, 1f)) {
            val options = SamplingOptions(temperature = temperature)
            assertThrows(LogitsException::class.java) { sample(options, 0f, Float.NaN, 1f) }
            assertThrows(LogitsException::class.java) { sample(options, infinite, infinite) }
            assertThrows(LogitsException::class.java) { sample(options, 1f, Float.POSITIVE_INFINITY) }
            assertThrows(LogitsException::class.java) { TopPSampler(options, 3).sample(buffer(1f, 2f)) }
        }
    }

    @Test
    fun `impossible tokens are never drawn`() {
        val sampler = TopPSampler(SamplingOptions(temperature = 5f, seed = 1), 3)
        val logits = floatArrayOf(Float.NEGATIVE_INFINITY, 1f, Float.NEGATIVE_INFINITY)
        repeat(100) { assertEquals(1, sampler.sample(buffer(*logits))) }
    }

    @Test
    fun `options out of range or not numbers are refused`() {
        val wrong = listOf<() -> SamplingOptions>(
            { SamplingOptions(temperature = -0.1f) },
            { SamplingOptions(temperature = Float.NaN) },
            { SamplingOptions(temperature = Float.POSITIVE_INFINITY) },
            { SamplingOptions(topP = 0f) },
            { SamplingOptions(topP = 1.1f) },
            { SamplingOptions(topP = Float.NaN) },
            { SamplingOptions(topK = -1) },
            { SamplingOptions(minP = 1f) },
            { SamplingOptions(minP = Float.NaN) },
            { SamplingOptions(repetitionPenalty = 0f) },
            { SamplingOptions(repetitionPenalty = Float.NaN) },
        )
        for (make in wrong) assertThrows(InvalidRequestException::class.java) { make() }
    }
}
