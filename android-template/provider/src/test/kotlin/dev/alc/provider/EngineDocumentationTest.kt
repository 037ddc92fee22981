package dev.alc.provider

import dev.alc.engine.ALCEngine
import dev.alc.engine.BackendTimeoutException
import dev.alc.engine.ChatMessage
import dev.alc.engine.ContextFullException
import dev.alc.engine.ContextPolicy
import dev.alc.engine.EngineException
import dev.alc.engine.FinishReason
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.MemoryBudgetException
import dev.alc.engine.Prompt
import dev.alc.engine.ResponseFormat
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import java.io.File

/**
 * The code of docs/engine.md, run with a strategy that was plugged in. What stands between two
 * marks is a block of that document; a test holds the two against each other.
 */
class EngineDocumentationTest {
    private val strategy = AlphabetStrategy()
    private val codeCacheDir = File("code")
    private val model = File("model")
    private val screen = Screen()
    private val options = GenerationOptions(temperature = 0f, maxTokens = 5)
    private val provider = LocalLLMProvider(codeCacheDir)

    @Before
    fun loadModel() = runBlocking { provider.initialize(LLMConfig(model.path)).getOrThrow().let {} }

    @After
    fun unloadModel() = runBlocking { provider.cleanup().getOrThrow() }

    @Test
    fun `a model is loaded`() = runBlocking {
        // docs/engine.md: begin
        val provider = LocalLLMProvider(codeCacheDir)
        val config = LLMConfig(modelPath = model.path, maxMemoryMB = 2048, threads = 4)
        val loaded = provider.initialize(config) { progress ->
            screen.status("${progress.stage}: ${progress.doneBytes} of ${progress.totalBytes} bytes")
        }
        loaded.onSuccess { info -> screen.status("${info.model} (${info.quantization}) on ${info.backend}") }
        loaded.onFailure { problem -> screen.status("${problem.message}") }
        // docs/engine.md: end
        assertEquals("letters (none) on test cpu", screen.status)
        provider.cleanup().getOrThrow()
    }

    @Test
    fun `an answer is streamed`() = runBlocking {
        // docs/engine.md: begin
        val options = GenerationOptions(maxTokens = 200, temperature = 0.7f, updateIntervalMs = 50)
        provider.generateResponse("Name three rivers", options).collect { response ->
            when (response) {
                is LLMResponse.Streaming -> screen.append(response.text)
                is LLMResponse.Complete -> screen.status("${response.usage.completionTokens} tokens")
                is LLMResponse.Error -> screen.status("${response.error.message}")
            }
        }
        // docs/engine.md: end
        assertTrue(screen.status, screen.status.endsWith(" tokens"))
        assertTrue(screen.text.isNotEmpty())
    }

    @Test
    fun `a button stops the answer`() = runBlocking {
        val question = "w"
        // docs/engine.md: begin
        val answer = launch {
            provider.generateResponse(question, options).collect { screen.show(it) }
        }
        screen.onStopButton { provider.stop() }
        screen.onLeave { answer.cancel() }
        // docs/engine.md: end
        answer.join()
        assertEquals("xyz", screen.text)
        screen.buttons.forEach { it() }
    }

    @Test
    fun `a conversation goes on`() = runBlocking {
        // docs/engine.md: begin
        val messages = mutableListOf(ChatMessage("system", "You answer in one sentence."))

        suspend fun ask(question: String) {
            messages += ChatMessage("user", question)
            provider.chat(messages, options).collect { response ->
                screen.show(response)
                if (response is LLMResponse.Complete) messages += ChatMessage("assistant", response.text)
            }
        }
        // docs/engine.md: end
        ask("w")
        ask("v")
        assertEquals(listOf("xyz", "wxyz"), messages.filter { it.role == "assistant" }.map { it.content })
    }

    @Test
    fun `an answer is one JSON object`() = runBlocking {
        val question = "w"
        // docs/engine.md: begin
        val options = GenerationOptions(responseFormat = ResponseFormat.JSON, maxTokens = 300)
        provider.generateResponse(question, options).collect { response ->
            if (response is LLMResponse.Complete) {
                val whole = response.reason == FinishReason.STOP
                screen.status(if (whole) "an object" else "the beginning of an object")
            }
        }
        // docs/engine.md: end
        assertTrue(screen.status, "object" in screen.status)
    }

    @Test
    fun `the system asks for memory`() = runBlocking {
        provider.answer(listOf(ChatMessage("user", "w")), options)
        coroutineScope {
            val scope = this
            val level = 80
            // docs/engine.md: begin
            scope.launch { provider.trimMemory(level) }
            // docs/engine.md: end
        }
        assertEquals(0, strategy.openSessions)
    }

    @Test
    fun `errors are told apart`() = runBlocking {
        // docs/engine.md: begin
        fun advice(error: EngineException): String = when (error) {
            is ContextFullException -> "Start a new conversation."
            is MemoryBudgetException -> "Choose a smaller model."
            is BackendTimeoutException -> "The model hangs: clean up and load it again."
            else -> "${error.kind}: ${error.message}"
        }
        // docs/engine.md: end
        assertEquals("Start a new conversation.", advice(provider.error("a".repeat(9999), options)))
    }

    @Test
    fun `the provider's health is checked`() = runBlocking {
        // docs/engine.md: begin
        val health = when (val found = provider.checkHealth()) {
            is LLMHealth.Healthy -> if (found.busy) "answering" else "ready"
            is LLMHealth.NotLoaded -> "no model is loaded"
            is LLMHealth.Loading -> "loading: ${found.progress?.stage}"
            is LLMHealth.Unavailable -> "missing: ${found.missing.joinToString()}"
            is LLMHealth.Unusable -> "${found.error.message}"
        }
        // docs/engine.md: end
        assertEquals("ready", health)
    }

    @Test
    fun `the engine is used without the provider`() = runBlocking {
        // docs/engine.md: begin
        val engine = ALCEngine(strategy)
        engine.load(model.path)
        val request = GenerationRequest(
            prompt = Prompt.Turn(listOf(ChatMessage("user", "Name three rivers"))),
            conversation = "rivers",
            contextPolicy = ContextPolicy.DROP_OLDEST_TURNS,
        )
        engine.generate(request).collect { event ->
            when (event) {
                is GenerationEvent.Started -> screen.status("${event.cachedTokens} tokens are known")
                is GenerationEvent.Prefilled -> screen.status("${event.tokens} tokens were read")
                is GenerationEvent.Tokens -> screen.append(event.text)
                is GenerationEvent.Finished -> screen.status("ended by ${event.reason}")
                is GenerationEvent.Failed -> screen.status("${event.error.message}")
            }
        }
        engine.fork("rivers", "more rivers")
        engine.trimTurns("more rivers", 0)
        engine.close()
        // docs/engine.md: end
        assertEquals("ended by STOP", screen.status)
        assertEquals("tuvwxyz", screen.text)
    }

    /** Takes the place of the constructor, which would load native code. */
    private fun LocalLLMProvider(@Suppress("UNUSED_PARAMETER") codeCache: File) = LocalLLMProvider(strategy)

    /** What an app shows. */
    private class Screen {
        var text = ""
            private set
        var status = ""
            private set
        val buttons = ArrayList<() -> Unit>()

        fun append(piece: String) {
            text += piece
        }

        fun status(line: String) {
            status = line
        }

        fun show(response: LLMResponse) {
            if (response is LLMResponse.Streaming) append(response.text)
        }

        fun onStopButton(action: () -> Unit) {
            buttons += action
        }

        fun onLeave(action: () -> Unit) {
            buttons += action
        }
    }
}
