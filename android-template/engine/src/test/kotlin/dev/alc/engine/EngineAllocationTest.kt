package dev.alc.engine

import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import java.nio.FloatBuffer

/** What a token leaves to the garbage collector, from its logits to its collector. */
class EngineAllocationTest {
    @Test
    fun `a token allocates some 300 bytes on the decode thread`() {
        for (sampling in listOf(SamplingOptions(), SamplingOptions(temperature = 1f, topK = 40, repetitionPenalty = 1.1f))) {
            val each = bytesEach(sampling, StreamingPolicy.Slow())
            assertTrue("$each bytes a token with $sampling", each < 400)
        }
    }

    @Test
    fun `where the model waits for its collector at each token it is some 500`() {
        val each = bytesEach(SamplingOptions(), StreamingPolicy.Slow(capacity = 1))
        assertTrue("$each bytes a token", each < 700)
    }

    private fun bytesEach(sampling: SamplingOptions, streaming: StreamingPolicy): Long = runBlocking {
        assumeAllocationIsCounted()
        val model = QuietModel()
        val engine = ALCEngine(ScriptedStrategy(model))
        engine.load("")
        val prompt = Prompt.Tokens(intArrayOf(TOKEN))
        val request = GenerationRequest(prompt, maxTokens = TOKENS, sampling = sampling, streaming = streaming)
        var tokens = 0
        engine.generate(request).collect { if (it is GenerationEvent.Tokens) tokens += it.ids.size }
        engine.close()
        assertEquals(TOKENS, tokens)
        (model.bytes[TOKENS - 1] - model.bytes[WARM]) / (TOKENS - 1 - WARM)
    }

    /** Always says the same token, allocates nothing, and notes what its thread had allocated at each call. */
    private class QuietModel : LoadedModel {
        val bytes = LongArray(TOKENS + 1)
        private val logits = FloatBuffer.allocate(ScriptedModel.VOCABULARY).put(TOKEN, 30f)

        override val info = ScriptedModel("", window = bytes.size + 1).info
        override val tokenizer = ByteTokenizer
        override val chatTemplate = null
        override val cache = CachePool(bytes.size + 8, 4, 1)

        override fun openSession() = object : ModelSession {
            override var length = 0
                private set

            override fun prefill(tokens: IntArray): FloatBuffer = decode(tokens.single())

            override fun decode(token: Int): FloatBuffer {
                bytes[length++] = Allocation.bytes()
                return logits
            }

            override fun verify(tokens: IntArray) = error("not used")

            override fun trim(newLength: Int) = error("not used")

            override fun fork() = error("not used")

            override fun reset() = error("not used")

            override fun close() = Unit
        }

        override fun close() = Unit
    }

    private companion object {
        const val TOKEN = 'a'.code
        const val WARM = 200
        const val TOKENS = 2200
    }
}
