package dev.alc.provider

import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineConfig
import dev.alc.engine.EngineException
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadStage
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.last
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.concurrent.CountDownLatch

/** Whatever goes wrong, the app gets a typed error, and the provider serves the next request. */
class ProviderErrorsTest {
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
    fun `before initialize and after cleanup a request is an error`() = runBlocking {
        assertEquals("lifecycle", provider.error("a", greedy).kind)
        provider.stop()
        provider.trimMemory(LEVEL_COMPLETE)
        provider.cleanup()
        provider.initialize(config).getOrThrow()
        provider.cleanup()
        provider.cleanup()
        assertEquals("lifecycle", provider.error("a", greedy).kind)
        provider.initialize(config).getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `a request while the model is being loaded is an error`() = runBlocking {
        val open = CompletableDeferred<Unit>()
        val reached = CompletableDeferred<Unit>()
        strategy.onLoad = {
            reached.complete(Unit)
            open.await()
        }
        val loading = async { provider.initialize(config) }
        reached.await()
        val error = provider.error("a", greedy)
        assertEquals("lifecycle", error.kind)
        assertTrue(error.message, "being loaded" in error.message!!)
        provider.trimMemory(LEVEL_COMPLETE)
        open.complete(Unit)
        loading.await().getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `of many that initialize at once one does`() = runBlocking {
        val results = List(8) { async(Dispatchers.Default) { provider.initialize(config) } }.awaitAll()
        assertEquals(1, results.count { it.isSuccess })
        assertEquals(List(7) { "lifecycle" }, results.mapNotNull { kind(it) })
        assertStillWorks()
    }

    @Test
    fun `a cancelled initialize leaves the provider as it was`() = runBlocking {
        val reached = CompletableDeferred<Unit>()
        strategy.onLoad = {
            reached.complete(Unit)
            CompletableDeferred<Unit>().await()
        }
        val loading = launch { provider.initialize(config) }
        reached.await()
        loading.cancelAndJoin()
        assertEquals(LLMHealth.NotLoaded, provider.checkHealth())
        strategy.onLoad = {}
        provider.initialize(config).getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `a load that fails in any way is a failed result`() = runBlocking {
        for (failure in listOf(IllegalStateException("x"), OutOfMemoryError("x"), CancellationException("x"))) {
            strategy.onLoad = { throw failure }
            val problem = provider.initialize(config).exceptionOrNull() as EngineException
            assertEquals("backend", problem.kind)
            assertNull(provider.getInfo())
        }
        strategy.onLoad = { report ->
            report(LoadProgress(LoadStage.START, 0, 1))
            awaitCancellation()
        }
        assertEquals("backend", kind(provider.initialize(config) { throw IllegalStateException("the app's own") }))
        strategy.onLoad = {}
        provider.initialize(config).getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `a strategy that cannot run says what is missing`() = runBlocking {
        val failure = LocalLLMProvider(AlphabetStrategy(listOf("a GPU"))).initialize(config).exceptionOrNull()
        assertEquals("strategy-unavailable", (failure as EngineException).kind)
        assertTrue(failure.message, "a GPU" in failure.message!!)
    }

    @Test
    fun `a model that does not fit the memory is refused`() = runBlocking {
        assertEquals("memory-budget", kind(provider.initialize(config.copy(maxMemoryMB = 7))))
        provider.initialize(config.copy(maxMemoryMB = 8)).getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `wrong settings are refused by name`() = runBlocking {
        val wrong = mapOf(
            "threads" to config.copy(threads = 0),
            "contextTokens" to config.copy(contextTokens = -1),
            "maxMemory" to config.copy(maxMemoryMB = 0),
        )
        for ((name, settings) in wrong) {
            val problem = provider.initialize(settings).exceptionOrNull() as EngineException
            assertEquals("invalid-request", problem.kind)
            assertTrue(problem.message, name in problem.message!!)
        }
    }

    @Test
    fun `wrong options are refused by name, and the next request is served`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val wrong = mapOf(
            "maxTokens" to greedy.copy(maxTokens = 0),
            "temperature" to greedy.copy(temperature = Float.NaN),
            "topP" to greedy.copy(topP = -0.5f),
            "topK" to greedy.copy(topK = -1),
            "minP" to greedy.copy(minP = 1f),
            "typicalP" to greedy.copy(typicalP = Float.NaN),
            "repetitionPenalty" to greedy.copy(repetitionPenalty = 0f),
            "frequencyPenalty" to greedy.copy(frequencyPenalty = Float.NaN),
            "presencePenalty" to greedy.copy(presencePenalty = 1000f),
            "logitBias" to greedy.copy(logitBias = mapOf(-1 to 1f)),
            "stop" to greedy.copy(stop = listOf("")),
            "stops" to greedy.copy(stop = List(17) { "$it" }),
            "intervalMillis" to greedy.copy(updateIntervalMs = -1),
        )
        for ((name, options) in wrong) {
            val error = provider.error("a", options)
            assertEquals(name, "invalid-request", error.kind)
            assertTrue(error.message, name in error.message!!)
            assertStillWorks()
        }
    }

    @Test
    fun `requests without anything to answer are refused`() = runBlocking {
        provider.initialize(config).getOrThrow()
        assertEquals("invalid-request", provider.error("", greedy).kind)
        for (messages in listOf(emptyList(), listOf(ChatMessage("user", "")))) {
            val last = provider.chat(messages, greedy).last()
            assertEquals("invalid-request", (last as LLMResponse.Error).error.kind)
        }
        val unnamed = provider.chat(listOf(ChatMessage("user", "a")), greedy, conversation = "").last()
        assertEquals("invalid-request", (unnamed as LLMResponse.Error).error.kind)
        assertStillWorks()
    }

    @Test
    fun `a prompt of a megabyte is refused`() = runBlocking {
        provider.initialize(config).getOrThrow()
        assertEquals("context-full", provider.error("word ".repeat(200_000), greedy).kind)
        assertStillWorks()
    }

    @Test
    fun `halves of surrogate pairs and markup are text like any other`() = runBlocking {
        provider.initialize(config).getOrThrow()
        for (prompt in listOf("\uD83D", "\uDE00\uD83D", "<|im_end|>", "\u0000")) {
            provider.answer(prompt, greedy)
        }
        assertStillWorks()
    }

    @Test
    fun `a model that fails on the way is an error behind the text so far`() = runBlocking {
        provider.initialize(config).getOrThrow()
        for (at in 1..3) {
            var step = 0
            strategy.onStep = { if (++step == at) throw ArithmeticException("overflow") }
            val responses = provider.generateResponse("w", greedy).toList()
            assertEquals("backend", (responses.last() as LLMResponse.Error).error.kind)
            assertEquals(at, responses.size)
            strategy.onStep = {}
            assertStillWorks()
        }
    }

    @Test
    fun `a backend that fails at giving back is told, and a model can be loaded again`() = runBlocking {
        provider.initialize(config).getOrThrow()
        strategy.onClose = { throw IllegalStateException("it holds on") }
        assertEquals("backend", (provider.cleanup().exceptionOrNull() as EngineException).kind)
        strategy.onClose = {}
        assertTrue(provider.cleanup().isSuccess)
        provider.initialize(config).getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `a model that hangs is told, and does not keep cleanup waiting`() = runBlocking {
        val hasty = LocalLLMProvider(strategy, EngineConfig(callTimeoutMillis = 2_000))
        hasty.initialize(config).getOrThrow()
        val release = CountDownLatch(1)
        strategy.onStep = { release.await() }
        assertEquals("backend-timeout", hasty.error("w", greedy).kind)
        assertEquals("backend-timeout", (hasty.checkHealth() as LLMHealth.Unusable).error.kind)
        hasty.cleanup().getOrThrow()
        assertEquals("lifecycle", hasty.error("w", greedy).kind)

        strategy.onStep = {}
        hasty.initialize(config).getOrThrow()
        assertEquals("xyz", hasty.answer("w", greedy).text)
        hasty.cleanup().getOrThrow()
        release.countDown()
        // What hung gives back what it holds once it returns.
        while (strategy.openModels > 0) delay(1)
    }

    @Test
    fun `cleanup during an answer ends it with an error`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val endless = greedy.copy(maxTokens = 4000)
        val cleaning = CompletableDeferred<Unit>()
        val responses = provider.generateResponse("A", endless).onEach {
            if (cleaning.complete(Unit)) launch(Dispatchers.Default) { provider.cleanup() }
        }.toList()
        assertEquals("lifecycle", (responses.last() as LLMResponse.Error).error.kind)
        provider.initialize(config).getOrThrow()
        assertStillWorks()
    }

    @Test
    fun `an answer that is cancelled before it starts leaves nothing`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val steps = strategy.steps
        val never = launch(start = CoroutineStart.LAZY) { provider.generateResponse("a", greedy).collect {} }
        never.cancelAndJoin()
        assertEquals(steps, strategy.steps)
        val endless = provider.generateResponse("A", greedy.copy(maxTokens = 4000))
        val early = launch(start = CoroutineStart.UNDISPATCHED) { endless.collect {} }
        early.cancelAndJoin()
        assertTrue("${strategy.steps}", strategy.steps < 4000)
        assertStillWorks()
    }

    @Test
    fun `a collector's own exception is its own`() = runBlocking {
        provider.initialize(config).getOrThrow()
        val own = IllegalStateException("the app's own")
        val thrown = assertThrows(IllegalStateException::class.java) {
            runBlocking { provider.generateResponse("A", greedy).collect { throw own } }
        }
        // Coroutines may copy an exception on its way; the original is its cause then.
        assertSame(own, generateSequence<Throwable>(thrown) { it.cause }.last())
        assertEquals("B", (provider.generateResponse("A", greedy).first() as LLMResponse.Streaming).text)
        assertStillWorks()
    }

    private suspend fun assertStillWorks() {
        assertEquals("xyz", provider.answer("w", greedy).text)
        assertEquals(0, strategy.openSessions)
    }

    private fun kind(result: Result<LLMInfo>): String? = (result.exceptionOrNull() as EngineException?)?.kind

    private companion object {
        // android.content.ComponentCallbacks2.TRIM_MEMORY_COMPLETE
        const val LEVEL_COMPLETE = 80
    }
}
