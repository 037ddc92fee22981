package dev.alc.provider

import app.cash.turbine.test
import dev.alc.engine.ChatMessage
import dev.alc.engine.ContextPolicy
import dev.alc.engine.FinishReason
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadStage
import dev.alc.engine.ResponseFormat
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.last
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

/** What apps get from a provider, with a strategy that was plugged in. */
class LocalLLMProviderTest {
    private val strategy = AlphabetStrategy()
    private val provider = LocalLLMProvider(strategy)
    private val config = LLMConfig(modelPath = "any", maxMemoryMB = 64)
    private val greedy = GenerationOptions(temperature = 0f)

    @After
    fun `everything is given back`() = runBlocking {
        provider.cleanup()
        assertEquals(0, strategy.openSessions)
        assertEquals(0, strategy.openModels)
    }

    @Test
    fun `an answer streams in pieces and ends complete`() = runBlocking {
        provider.initialize(config).getOrThrow()
        provider.generateResponse("w", greedy).test {
            for (letter in listOf("x", "y", "z")) assertEquals(LLMResponse.Streaming(letter), awaitItem())
            val complete = awaitItem() as LLMResponse.Complete
            assertEquals("xyz", complete.text)
            assertEquals(FinishReason.STOP, complete.reason)
            assertEquals(3, complete.usage.completionTokens)
            assertTrue(complete.timeToFirstTokenMs!! >= 0)
            assertTrue(complete.tokensPerSecond!! > 0)
            awaitComplete()
        }
    }

    @Test
    fun `the number of tokens is kept`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val complete = provider.answer("a", greedy.copy(maxTokens = 2))
        assertEquals("bc", complete.text)
        assertEquals(FinishReason.LENGTH, complete.reason)
    }

    @Test
    fun `the sampling options reach the model's choice`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val forbidden = greedy.copy(logitBias = mapOf('c'.code to Float.NEGATIVE_INFINITY), maxTokens = 2)
        assertEquals('b', provider.answer("a", forbidden).text[0])
        assertTrue('c' !in provider.answer("a", forbidden).text)
        val warm = GenerationOptions(temperature = 50f, topP = 1f, seed = 7, maxTokens = 40)
        val varied = provider.answer("A", warm).text
        assertEquals(varied, provider.answer("A", warm).text)
        assertTrue(varied != provider.answer("A", warm.copy(seed = 8)).text)
        assertEquals("BCDE", provider.answer("A", warm.copy(topK = 1, maxTokens = 4)).text)
    }

    @Test
    fun `an answer ends before a stop`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val stopped = provider.answer("a", greedy.copy(stop = listOf("zz", "fg")))
        assertEquals("bcde", stopped.text)
        assertEquals(FinishReason.STOP, stopped.reason)
    }

    @Test
    fun `an answer can be held to JSON`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val options = GenerationOptions(responseFormat = ResponseFormat.JSON, maxTokens = 30)
        val text = provider.answer("a", options).text.trimStart(' ', '\t', '\r', '\n')
        assertTrue(text, text.isEmpty() || text.startsWith("{"))
        assertTrue(!provider.answer("a", options.copy(responseFormat = ResponseFormat.TEXT)).text.startsWith("{"))
    }

    @Test
    fun `a full context is refused, or costs the oldest turns`() = runBlocking {
        provider.initialize(config.copy(contextTokens = 64)).getOrThrow()
        val turns = List(10) { listOf(ChatMessage("user", "a234"), ChatMessage("assistant", "a6789")) }.flatten()
        val asked = turns + ChatMessage("user", "w")
        val refused = provider.chat(asked, greedy.copy(maxTokens = 8)).last() as LLMResponse.Error
        assertEquals("context-full", refused.error.kind)
        val policy = greedy.copy(maxTokens = 8, contextPolicy = ContextPolicy.DROP_OLDEST_TURNS)
        val answer = provider.answer(asked, policy)
        assertEquals("xyz", answer.text)
        assertEquals(8, answer.droppedMessages)
    }

    @Test
    fun `messages that change later change nothing`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val messages = mutableListOf(ChatMessage("user", "w"))
        val flow = provider.chat(messages, greedy)
        messages += ChatMessage("user", "a")
        assertEquals("xyz", (flow.last() as LLMResponse.Complete).text)
    }

    @Test
    fun `text for a screen comes in as few pieces as it is drawn`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val slow = greedy.copy(maxTokens = 500, updateIntervalMs = 3_600_000)
        val responses = provider.generateResponse("A", slow).toList()
        val pieces = responses.dropLast(1).map { (it as LLMResponse.Streaming).text }
        assertTrue("${pieces.size}", pieces.size <= 2)
        assertEquals((responses.last() as LLMResponse.Complete).text, pieces.joinToString(""))
    }

    @Test
    fun `a conversation computes only what is new`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val first = listOf(ChatMessage("user", "w"))
        assertEquals(0, provider.answer(first, greedy).usage.cachedTokens)
        val second = first + listOf(ChatMessage("assistant", "xyz"), ChatMessage("user", "m"))
        val next = provider.answer(second, greedy)
        assertEquals("nopqrstuvwxyz", next.text)
        assertTrue("${next.usage}", next.usage.cachedTokens >= 3)

        // What is asked beside it neither sees nor changes it.
        assertEquals(0, provider.answer("w", greedy).usage.cachedTokens)
        assertEquals(0, provider.answer(second, greedy, "another").usage.cachedTokens)
        assertEquals(next.usage.promptTokens - 1, provider.answer(second, greedy).usage.cachedTokens)
    }

    @Test
    fun `low memory costs conversations their caches, not their answers`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val asked = listOf(ChatMessage("user", "w"))
        provider.answer(asked, greedy)
        for (level in listOf(TRIM_MEMORY_RUNNING_MODERATE, TRIM_MEMORY_UI_HIDDEN)) {
            provider.trimMemory(level)
            assertEquals("level $level", 1, strategy.openSessions)
        }
        for (level in listOf(TRIM_MEMORY_RUNNING_LOW, TRIM_MEMORY_BACKGROUND, TRIM_MEMORY_COMPLETE)) {
            provider.trimMemory(level)
            assertEquals("level $level", 0, strategy.openSessions)
            assertEquals("xyz", provider.answer(asked, greedy).text)
        }
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
    }

    @Test
    fun `stop can mean one conversation`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val asked = listOf(ChatMessage("user", "A"))
        val endless = greedy.copy(maxTokens = 200)
        val other = provider.chat(asked, endless, "left").onEach { provider.stop("right") }.last()
        assertEquals(FinishReason.LENGTH, (other as LLMResponse.Complete).reason)
        val own = provider.chat(asked, endless, "right").onEach { provider.stop("right") }.last()
        assertEquals(FinishReason.CANCELLED, (own as LLMResponse.Complete).reason)
    }

    @Test
    fun `loading tells how far it is`() = runBlocking {
        val half = LoadProgress(LoadStage.WEIGHTS, 1, 2)
        val seen = CompletableDeferred<LoadProgress>()
        strategy.onLoad = { report ->
            report(half)
            seen.await()
        }
        provider.initialize(config) { seen.complete(it) }.getOrThrow()
        assertEquals(half, seen.await())
    }

    @Test
    fun `what is loaded is told`() = runBlocking {
        assertNull(provider.getInfo())
        val loaded = provider.initialize(config.copy(contextTokens = 1024)).getOrThrow()
        assertEquals(loaded, provider.getInfo())
        val bytes = (3L shl 20) + (1L shl 20) + (1L shl 20)
        assertEquals(LLMInfo("alphabet", "test 1", "letters", "none", "test cpu", 1024, bytes), loaded)
        provider.cleanup()
        assertNull(provider.getInfo())
    }

    @Test
    fun `an answer costs nothing`() {
        assertEquals(0.0, provider.estimateCost("a".repeat(1000), GenerationOptions(maxTokens = 4000)), 0.0)
    }

    @Test
    fun `health follows the provider's life`() = runBlocking {
        assertEquals(LLMHealth.NotLoaded, provider.checkHealth())
        val open = CompletableDeferred<Unit>()
        val progress = LoadProgress(LoadStage.START, 0, 1)
        val reported = CompletableDeferred<Unit>()
        strategy.onLoad = { report ->
            report(progress)
            reported.complete(Unit)
            open.await()
        }
        val loading = async { provider.initialize(config) }
        reported.await()
        assertEquals(LLMHealth.Loading(progress), provider.checkHealth())
        open.complete(Unit)
        val info = loading.await().getOrThrow()

        val steps = strategy.steps
        assertEquals(LLMHealth.Healthy(info, busy = false), provider.checkHealth())
        assertTrue(strategy.steps > steps)
        provider.cleanup()
        assertEquals(LLMHealth.NotLoaded, provider.checkHealth())
    }

    @Test
    fun `a check of the health does not disturb an answer`() = runBlocking {
        val info = provider.initialize(config).getOrThrow()
        val checks = ArrayList<LLMHealth>()
        val responses = provider.generateResponse("w", greedy)
            .onEach { if (it is LLMResponse.Streaming) checks += provider.checkHealth() }
            .toList()
        assertEquals("xyz", (responses.last() as LLMResponse.Complete).text)
        assertEquals(List(3) { LLMHealth.Healthy(info, busy = true) }, checks)
        assertEquals(LLMHealth.Healthy(info, busy = false), provider.checkHealth())
    }

    @Test
    fun `health says what is missing or fails`() = runBlocking {
        val needy = LocalLLMProvider(AlphabetStrategy(listOf("a GPU")))
        assertEquals(LLMHealth.Unavailable(listOf("a GPU")), needy.checkHealth())
        provider.initialize(config).getOrThrow()
        strategy.onStep = { throw IllegalStateException("the numbers are gone") }
        val sick = provider.checkHealth() as LLMHealth.Unusable
        assertEquals("backend", sick.error.kind)
        strategy.onStep = {}
        assertTrue(provider.checkHealth() is LLMHealth.Healthy)
    }

    private companion object {
        // As in android.content.ComponentCallbacks2.
        const val TRIM_MEMORY_RUNNING_MODERATE = 5
        const val TRIM_MEMORY_RUNNING_LOW = 10
        const val TRIM_MEMORY_UI_HIDDEN = 20
        const val TRIM_MEMORY_BACKGROUND = 40
        const val TRIM_MEMORY_COMPLETE = 80
    }
}
