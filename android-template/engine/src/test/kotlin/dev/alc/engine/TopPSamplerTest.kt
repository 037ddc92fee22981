package dev.alc.engine

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.nio.FloatBuffer
import kotlin.math.ln
import kotlin.random.Random

class TopPSamplerTest {
    private fun buffer(vararg logits: Float): FloatBuffer = FloatBuffer.wrap(logits)

    private fun sample(options: SamplingOptions, vararg logits: Float): Int =
        TopPSampler(options, logits.size).sample(buffer(*logits))

    @Test
    fun `greedy takes the largest, of equals the lowest id`() {
        assertEquals(2, sample(SamplingOptions(), 0f, -1f, 5f, 4f))
        assertEquals(1, sample(SamplingOptions(), 0f, 5f, 5f, 5f))
        assertEquals(1, sample(SamplingOptions(), Float.NEGATIVE_INFINITY, -1e30f))
    }

    @Test
    fun `the largest of a whole vocabulary is found wherever it is`() {
        val vocabSize = 3 * 1024 + 5
        val sampler = TopPSampler(SamplingOptions(), vocabSize)
        val random = Random(8)
        val some = FloatArray(vocabSize) { random.nextFloat() - 2f }
        for (place in listOf(0, 1, 1023, 1024, 2047, 3071, 3072, vocabSize - 1)) {
            val logits = some.copyOf()
            for (id in place until vocabSize step 512) logits[id] = -0.5f
            assertEquals(place, sampler.sample(buffer(*logits)))
            logits[place] = Float.NaN
            val failure = assertThrows(LogitsException::class.java) { sampler.sample(buffer(*logits)) }
            assertEquals("the logit of token $place is NaN", failure.message)
        }
        // Zeros of both signs are equal.
        assertEquals(5, sampler.sample(buffer(*some.copyOf().also { it[5] = -0f; it[2000] = 0f; it[9] = 0f })))
    }

    @Test
    fun `draws follow the distribution`() {
        val random = Random(3)
        val logits = FloatArray(40) { (random.nextFloat() - 0.5f) * 6 }
        val options = SamplingOptions(temperature = 0.9f, seed = 11)
        val draws = 5_000
        for (filtered in listOf(
            options,
            options.copy(topK = 20),
            options.copy(topP = 0.95f),
            options.copy(minP = 0.05f),
            options.copy(typicalP = 0.9f),
            options.copy(logitBias = mapOf(3 to 2f, 5 to Float.NEGATIVE_INFINITY)),
        )) {
            val sampler = TopPSampler(filtered, logits.size)
            val counts = IntArray(logits.size)
            repeat(draws) { counts[sampler.sample(buffer(*logits))]++ }
            val expected = sampler.distribution(buffer(*logits))
            assertTrue(counts.indices.all { counts[it] == 0 || it in expected })
            val square = expected.entries.sumOf { (id, probability) ->
                val mean = probability * draws
                (counts[id] - mean) * (counts[id] - mean) / mean
            }
            // Wilson and Hilferty: the 99.9 % point of chi-square with n degrees of freedom.
            val n = expected.size - 1.0
            val limit = n * Math.pow(1 - 2 / (9 * n) + 3.09 * Math.sqrt(2 / (9 * n)), 3.0)
            assertTrue("chi-square $square above $limit for $filtered", square < limit)
        }
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
    fun `the repetition penalty counts the prompt, frequency and presence do not`() {
        fun best(options: SamplingOptions, note: TopPSampler.() -> Unit) =
            TopPSampler(options, 2).apply(note).sample(buffer(3f, 2f))
        assertEquals(1, best(SamplingOptions(repetitionPenalty = 2f)) { prompt(0) })
        assertEquals(0, best(SamplingOptions(presencePenalty = 2f)) { prompt(0) })
        assertEquals(0, best(SamplingOptions(frequencyPenalty = 2f)) { prompt(0) })
        assertEquals(1, best(SamplingOptions(presencePenalty = 2f)) { accept(0) })
        assertEquals(1, best(SamplingOptions(frequencyPenalty = 2f)) { accept(0) })
    }

    @Test
    fun `frequency counts each occurrence in the answer, presence only whether there is one`() {
        val logits = floatArrayOf(3f, 1f)
        fun odds(options: SamplingOptions): Double {
            val sampler = TopPSampler(options.copy(temperature = 1f), 2)
            repeat(3) { sampler.accept(0) }
            val distribution = sampler.distribution(buffer(*logits))
            return ln(distribution.getValue(0) / distribution.getValue(1))
        }
        assertEquals(2.0, odds(SamplingOptions()), 1e-6)
        assertEquals(2.0 - 3 * 0.5, odds(SamplingOptions(frequencyPenalty = 0.5f)), 1e-6)
        assertEquals(2.0 - 0.5, odds(SamplingOptions(presencePenalty = 0.5f)), 1e-6)
        val both = SamplingOptions(frequencyPenalty = -0.5f, presencePenalty = 0.25f)
        assertEquals(2.0 + 3 * 0.5 - 0.25, odds(both), 1e-6)
    }

    @Test
    fun `a sequence of more tokens than fit at first is penalized whole`() {
        val sampler = TopPSampler(SamplingOptions(repetitionPenalty = 2f), 2000)
        for (token in 0 until 1999) sampler.prompt(token)
        assertEquals(1999, sampler.sample(FloatBuffer.wrap(FloatArray(2000) { if (it == 1999) 3f else 5f })))
    }

    @Test
    fun `logit bias raises, lowers and forbids`() {
        val logits = floatArrayOf(3f, 2f, 1f)
        fun best(vararg bias: Pair<Int, Float>) = sample(SamplingOptions(logitBias = mapOf(*bias)), *logits)
        assertEquals(2, best(2 to 2.5f))
        assertEquals(1, best(0 to -1.5f))
        assertEquals(2, best(0 to Float.NEGATIVE_INFINITY, 1 to Float.NEGATIVE_INFINITY))
        assertThrows(LogitsException::class.java) { best(*Array(3) { it to Float.NEGATIVE_INFINITY }) }
        assertThrows(InvalidRequestException::class.java) { best(3 to 1f) }
    }

    @Test
    fun `the penalties see the biased logits`() {
        // 1 - 3 is negative: the penalty makes -4 of it, and the other token is the better one.
        val options = SamplingOptions(repetitionPenalty = 2f, logitBias = mapOf(0 to -3f))
        val sampler = TopPSampler(options, 2)
        sampler.prompt(0)
        assertEquals(1, sampler.sample(buffer(1f, -3f)))
    }

    @Test
    fun `only allowed tokens are chosen`() {
        val logits = floatArrayOf(9f, 3f, 2f, 1f)
        val allowed = TokenSet(4).apply {
            add(2)
            add(3)
        }
        assertEquals(2, TopPSampler(SamplingOptions(), 4).sample(buffer(*logits), allowed))
        // The filters see what the mask leaves.
        val sampler = TopPSampler(SamplingOptions(temperature = 1f, topK = 2), 4)
        assertEquals(setOf(2, 3), sampler.distribution(buffer(*logits), allowed).keys)
        assertEquals(setOf(0, 1), sampler.distribution(buffer(*logits)).keys)
        allowed.clear()
        assertThrows(LogitsException::class.java) { sampler.sample(buffer(*logits), allowed) }
    }

    @Test
    fun `logits behind the vocabulary of a set are not allowed`() {
        val allowed = TokenSet(3).apply { add(1) }
        val logits = FloatBuffer.wrap(FloatArray(200) { it.toFloat() })
        assertEquals(1, TopPSampler(SamplingOptions(), 200).sample(logits, allowed))
    }

    @Test
    fun `typical-p keeps tokens of about as much information as the entropy`() {
        // One token of probability 0.4 and twelve of 0.05: the entropy is 2.16 nats; the information
        // of the first is 0.92, a distance of 1.25, of the others 3.00, a distance of 0.83.
        val logits = FloatArray(13) { if (it == 0) ln(0.4f) else ln(0.05f) }
        fun kept(share: Float) =
            TopPSampler(SamplingOptions(temperature = 1f, typicalP = share), 13).distribution(buffer(*logits)).keys
        assertEquals(setOf(1), kept(1e-30f))
        assertEquals((1..5).toSet(), kept(0.22f))
        assertEquals((1..12).toSet(), kept(0.58f))
        assertEquals((0..12).toSet(), kept(0.62f))
    }

    @Test
    fun `the smallest share keeps the best, and of equal tokens lower ids stay longer`() {
        fun kept(options: SamplingOptions, vararg logits: Float) =
            TopPSampler(options.copy(temperature = 1f), logits.size).distribution(buffer(*logits)).keys
        assertEquals(setOf(1), kept(SamplingOptions(topP = 1e-30f), 1f, 2f, 2f))
        assertEquals(setOf(1, 2), kept(SamplingOptions(topK = 2), 1f, 2f, 2f, 2f))
        assertEquals(setOf(0, 1), kept(SamplingOptions(topP = 0.5f), 2f, 2f, 2f, 2f))
        // Minus zero equals zero.
        assertEquals(setOf(0), kept(SamplingOptions(topK = 1), -0f, 0f))
        assertEquals(setOf(0), kept(SamplingOptions(topK = 1), 0f, -0f))
        assertEquals(setOf(0, 3), kept(SamplingOptions(topK = 2), -0.5f, -2f, -1f, 3f))
    }

    @Test(timeout = 60_000)
    fun `no pattern of logits makes the filters slow`() {
        // A method that takes time in proportion to the square would need minutes.
        val size = 100_000
        val patterns = listOf<(Int) -> Float>(
            { it * 1e-4f },
            { -it * 1e-4f },
            { minOf(it, size - it) * 1e-4f },
            { 1f },
            { (it % 2).toFloat() },
            { 1000f + it * 1e-8f },
        )
        for (pattern in patterns) {
            val logits = FloatBuffer.wrap(FloatArray(size, pattern))
            for (options in listOf(
                SamplingOptions(temperature = 1f, topP = 0.5f),
                SamplingOptions(temperature = 1f, topK = size / 2),
                SamplingOptions(temperature = 1f, typicalP = 0.5f),
            )) {
                TopPSampler(options, size).sample(logits)
            }
        }
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
            // A fault of the model is one where the mask hides it, too.
            val first = TokenSet(2).apply { add(0) }
            for (fault in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
                assertThrows(LogitsException::class.java) { TopPSampler(options, 2).sample(buffer(0f, fault), first) }
            }
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
            { SamplingOptions(typicalP = 0f) },
            { SamplingOptions(typicalP = Float.NaN) },
            { SamplingOptions(frequencyPenalty = 101f) },
            { SamplingOptions(frequencyPenalty = Float.NaN) },
            { SamplingOptions(presencePenalty = -101f) },
            { SamplingOptions(presencePenalty = Float.NaN) },
            { SamplingOptions(logitBias = mapOf(-1 to 0f)) },
            { SamplingOptions(logitBias = mapOf(0 to Float.NaN)) },
            { SamplingOptions(logitBias = mapOf(0 to Float.POSITIVE_INFINITY)) },
            { SamplingOptions(repetitionPenalty = 0f) },
            { SamplingOptions(repetitionPenalty = Float.NaN) },
        )
        for (make in wrong) assertThrows(InvalidRequestException::class.java) { make() }
    }
}
