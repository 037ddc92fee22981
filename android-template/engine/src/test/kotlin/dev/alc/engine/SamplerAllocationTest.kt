package dev.alc.engine

import org.junit.Assert.assertTrue
import org.junit.Test
import java.nio.FloatBuffer
import kotlin.random.Random

/** What the garbage collector gets to do for each token. */
class SamplerAllocationTest {
    @Test
    fun `sampling a token allocates next to nothing`() {
        assumeAllocationIsCounted()
        val size = 5_000
        val random = Random(1)
        val logits = FloatBuffer.wrap(FloatArray(size) { random.nextFloat() * 20 })
        val allowed = TokenSet(size).apply { for (id in 0 until size step 2) add(id) }
        val greedy = SamplingOptions(repetitionPenalty = 1.1f, frequencyPenalty = 0.1f, logitBias = mapOf(3 to 1f))
        val drawn = greedy.copy(temperature = 1f, topP = 0.9f, topK = 1_000, minP = 0.001f, typicalP = 0.9f)
        for (options in listOf(greedy, drawn)) {
            val sampler = TopPSampler(options, size)
            val next = { sampler.accept(sampler.sample(logits, allowed)) }
            repeat(300) { next() }
            val rounds = 300
            val before = Allocation.bytes()
            repeat(rounds) { next() }
            val each = (Allocation.bytes() - before) / rounds
            assertTrue("$each bytes a token with $options", each < 300)
        }
    }
}
