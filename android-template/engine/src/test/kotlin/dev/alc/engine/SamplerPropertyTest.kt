package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.PropTestConfig
import io.kotest.property.arbitrary.arbitrary
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.nio.FloatBuffer
import kotlin.random.Random

/** What holds of every sampler, on random logits and options. */
class SamplerPropertyTest {
    private class Case(
        val logits: FloatArray,
        val options: SamplingOptions,
        val prompt: List<Int>,
        val answer: List<Int>,
        val allowed: TokenSet?,
    ) {
        val size = logits.size

        fun sampler(options: SamplingOptions = this.options) = TopPSampler(options, size).also { sampler ->
            prompt.forEach(sampler::prompt)
            answer.forEach(sampler::accept)
        }

        fun logits(): FloatBuffer = FloatBuffer.wrap(logits)

        fun possible(id: Int) = logits[id] > Float.NEGATIVE_INFINITY && (allowed == null || id in allowed) &&
            options.logitBias[id] != Float.NEGATIVE_INFINITY

        /** Bias and penalties as their descriptions say, token by token. */
        fun adjusted(id: Int): Float {
            if (!possible(id)) return Float.NEGATIVE_INFINITY
            var logit = logits[id] + (options.logitBias[id] ?: 0f)
            if (id in prompt || id in answer) {
                logit = if (logit > 0) logit / options.repetitionPenalty else logit * options.repetitionPenalty
            }
            if (id in answer) {
                logit -= answer.count { it == id } * options.frequencyPenalty + options.presencePenalty
            }
            return logit
        }

        override fun toString() = "$size logits ${logits.take(20)}, $options, prompt $prompt, answer $answer, " +
            "allowed ${allowed?.let { set -> logits.indices.filter { it in set } }}"
    }

    private val cases = arbitrary { source ->
        val random = source.random
        val size = random.nextInt(1, 120)
        val ties = random.nextBoolean()
        val logits = FloatArray(size) {
            val value = (random.nextFloat() - 0.5f) * 20
            if (random.nextInt(8) == 0) Float.NEGATIVE_INFINITY else if (ties) Math.round(value).toFloat() else value
        }
        val allowed = if (random.nextBoolean()) null else TokenSet(size).apply {
            for (id in 0 until size) if (random.nextInt(3) > 0) add(id)
        }
        fun tokens() = List(random.nextInt(0, 12)) { random.nextInt(size) }
        Case(logits, options(random, size), tokens(), tokens(), allowed)
    }

    private fun options(random: Random, size: Int): SamplingOptions {
        fun <T> maybe(neutral: T, other: () -> T) = if (random.nextBoolean()) neutral else other()
        return SamplingOptions(
            temperature = random.nextFloat() * 2 + 0.05f,
            topP = maybe(1f) { random.nextFloat() * 0.98f + 0.01f },
            topK = maybe(0) { random.nextInt(1, size + 10) },
            minP = maybe(0f) { random.nextFloat() * 0.5f },
            typicalP = maybe(1f) { random.nextFloat() * 0.98f + 0.01f },
            repetitionPenalty = maybe(1f) { random.nextFloat() * 2 + 0.5f },
            frequencyPenalty = maybe(0f) { random.nextFloat() * 4 - 2 },
            presencePenalty = maybe(0f) { random.nextFloat() * 4 - 2 },
            logitBias = List(random.nextInt(0, 4)) {
                random.nextInt(size) to maybe(Float.NEGATIVE_INFINITY) { random.nextFloat() * 20 - 10 }
            }.toMap(),
            seed = random.nextLong(),
        )
    }

    private fun holds(arb: Arb<Case> = cases, rule: (Case) -> Unit) = runBlocking<Unit> {
        checkAll(PropTestConfig(seed = 20, iterations = 500), arb) { rule(it) }
    }

    @Test
    fun `a token that is masked, forbidden or impossible is never drawn`() = holds { case ->
        val possible = (0 until case.size).filter(case::possible)
        val sampler = case.sampler()
        if (possible.isEmpty()) {
            assertThrows(LogitsException::class.java) { sampler.sample(case.logits(), case.allowed) }
        } else {
            assertTrue(possible.containsAll(sampler.distribution(case.logits(), case.allowed).keys))
            repeat(20) { assertTrue(sampler.sample(case.logits(), case.allowed) in possible) }
        }
    }

    @Test
    fun `a draw is one of the tokens of the distribution, which sums to 1`() = holds { case ->
        if (!(0 until case.size).any(case::possible)) return@holds
        val sampler = case.sampler()
        val distribution = sampler.distribution(case.logits(), case.allowed)
        assertEquals(1.0, distribution.values.sum(), 1e-9)
        assertTrue(distribution.values.all { it > 0 })
        repeat(20) { assertTrue(sampler.sample(case.logits(), case.allowed) in distribution) }
    }

    @Test
    fun `the same seed draws the same tokens`() = holds { case ->
        if (!(0 until case.size).any(case::possible)) return@holds
        fun draws() = case.sampler().let { sampler -> List(10) { sampler.sample(case.logits(), case.allowed) } }
        assertEquals(draws(), draws())
    }

    @Test
    fun `greedy is the largest logit after bias and penalties`() = holds { case ->
        if (!(0 until case.size).any(case::possible)) return@holds
        val greedy = case.sampler(case.options.copy(temperature = 0f))
        val best = (0 until case.size).maxBy(case::adjusted)
        assertEquals(best, greedy.sample(case.logits(), case.allowed))
        assertEquals(mapOf(best to 1.0), greedy.distribution(case.logits(), case.allowed))
    }

    @Test
    fun `without a filter the odds of two tokens are those of their logits`() = holds { case ->
        if (!(0 until case.size).any(case::possible)) return@holds
        val open = case.options.copy(topP = 1f, topK = 0, minP = 0f, typicalP = 1f)
        val distribution = case.sampler(open).distribution(case.logits(), case.allowed)
        val (best, most) = distribution.maxBy { it.value }
        for ((id, probability) in distribution) {
            val odds = (case.adjusted(id) - case.adjusted(best)) / open.temperature
            // The weights are floats, of 24 bits where they are not tiny.
            if (odds > -80) assertEquals(odds.toDouble(), Math.log(probability / most), 1e-6)
        }
    }

    @Test
    fun `another numbering of the tokens changes nothing but the numbers`() = holds { case ->
        // Of equal tokens the lower number counts as the better: here none are equal.
        val logits = case.logits.indices.map { case.logits[it] + it / 1000f }.toFloatArray()
        val options = case.options.copy(logitBias = emptyMap())
        val order = logits.indices.shuffled(Random(case.options.seed))
        val shuffled = FloatArray(case.size) { logits[order[it]] }
        if (logits.all { it == Float.NEGATIVE_INFINITY }) return@holds
        if (logits.filter { it > Float.NEGATIVE_INFINITY }.let { it.toSet().size < it.size }) return@holds
        val plain = TopPSampler(options, case.size).distribution(FloatBuffer.wrap(logits))
        val other = TopPSampler(options, case.size).distribution(FloatBuffer.wrap(shuffled))
        assertEquals(plain.keys, other.keys.map { order[it] }.toSet())
        for ((id, probability) in other) assertEquals(plain.getValue(order[id]), probability, 1e-12)
    }

    @Test
    fun `each filter keeps only tokens that would be kept without it`() = holds { case ->
        if (!(0 until case.size).any(case::possible)) return@holds
        fun kept(options: SamplingOptions) = case.sampler(options).distribution(case.logits(), case.allowed).keys
        var before = kept(case.options.copy(topP = 1f, topK = 0, minP = 0f, typicalP = 1f))
        for (options in listOf(
            case.options.copy(topP = 1f, minP = 0f, typicalP = 1f),
            case.options.copy(minP = 0f, typicalP = 1f),
            case.options.copy(typicalP = 1f),
            case.options,
        )) {
            val after = kept(options)
            assertTrue("$options", after.isNotEmpty() && before.containsAll(after))
            before = after
        }
    }
}
