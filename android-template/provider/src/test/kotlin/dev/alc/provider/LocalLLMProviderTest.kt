package dev.alc.provider

import dev.alc.engine.CacheBudgetException
import dev.alc.engine.FinishReason
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import dev.alc.engine.StrategyUnavailableException
import kotlinx.coroutines.flow.last
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class LocalLLMProviderTest {
    private val strategy = AlphabetStrategy()
    private val provider = LocalLLMProvider(strategy)
    private val config = LLMConfig(modelPath = "any", maxMemoryMB = 64)
    private val greedy = GenerationOptions(temperature = 0f)

    @Test
    fun `an answer streams in pieces and ends complete`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val responses = provider.generateResponse("w", greedy).toList()
        val pieces = responses.dropLast(1).map { (it as LLMResponse.Streaming).text }
        val complete = responses.last() as LLMResponse.Complete
        assertEquals(listOf("x", "y", "z"), pieces)
        assertEquals("xyz", complete.text)
        assertEquals(FinishReason.STOP, complete.reason)
        assertEquals(3, complete.usage.completionTokens)
        assertTrue(complete.timeToFirstTokenMs!! >= 0)
        provider.cleanup()
        assertEquals(0, strategy.openSessions)
    }

    @Test
    fun `the number of tokens is kept`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val last = provider.generateResponse("a", greedy.copy(maxTokens = 2)).last()
        assertEquals("bc", (last as LLMResponse.Complete).text)
        assertEquals(FinishReason.LENGTH, last.reason)
        provider.cleanup()
    }

    @Test
    fun `stop ends an answer and keeps what came`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val endless = greedy.copy(maxTokens = 4000)
        val responses = provider.generateResponse("A", endless).onEach { provider.stop() }.toList()
        val complete = responses.last() as LLMResponse.Complete
        assertEquals(FinishReason.CANCELLED, complete.reason)
        assertTrue(complete.text, complete.text.startsWith("B"))
        assertTrue(complete.text.length < 4000)
        provider.cleanup()
    }

    @Test
    fun `before initialize and after cleanup a request is an error, not a crash`() = runBlocking {
        fun LLMResponse.isLifecycleError() = (this as LLMResponse.Error).error is LifecycleException
        assertTrue(provider.generateResponse("a").last().isLifecycleError())
        provider.initialize(config).getOrThrow()
        assertTrue(provider.initialize(config).exceptionOrNull() is LifecycleException)
        provider.cleanup()
        assertNull(provider.getInfo())
        assertTrue(provider.generateResponse("a").last().isLifecycleError())
        provider.initialize(config).getOrThrow()
        assertEquals("alphabet", provider.getInfo()?.name)
        provider.cleanup()
    }

    @Test
    fun `a model that does not fit is refused with numbers`() = runBlocking {
        val failure = provider.initialize(config.copy(maxMemoryMB = 4)).exceptionOrNull()
        assertTrue(failure is CacheBudgetException)
        assertTrue(failure!!.message!!.contains("needs 3 MiB for weights and 4 MiB"))
        assertNull(provider.getInfo())
    }

    @Test
    fun `wrong options are errors`() = runBlocking {
        assertTrue(provider.initialize(config.copy(threads = 0)).exceptionOrNull() is InvalidRequestException)
        provider.initialize(config).getOrThrow()
        val last = provider.generateResponse("a", greedy.copy(maxTokens = 0)).last()
        assertTrue((last as LLMResponse.Error).error is InvalidRequestException)
        provider.cleanup()
    }

    @Test
    fun `a strategy that cannot run says what is missing`() = runBlocking {
        val failure = LocalLLMProvider(AlphabetStrategy(listOf("a GPU"))).initialize(config).exceptionOrNull()
        assertTrue(failure is StrategyUnavailableException)
        assertTrue(failure!!.message!!.contains("a GPU"))
    }
}
