package dev.alc.app

import dev.alc.engine.ALCEngine
import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineException
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import dev.alc.engine.ModelInfo
import dev.alc.engine.Prompt
import dev.alc.engine.StreamingPolicy
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject
import java.io.BufferedInputStream
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream

/**
 * One conversation with a host, as lines of JSON in both directions.
 *
 * The session says `ready`; then, for each `turn` of the host, `piece`s of text as the model makes
 * them and `done`, or `error`. A `stop` ends an answer early, with what there is of it; `reset` is
 * answered by `reset`. A line that is no message, or comes when it cannot be served, is an `error`
 * and changes nothing. The session ends with `bye` or with the connection.
 *
 * The conversation's key/value cache is kept from turn to turn, so a turn computes only what is new.
 */
internal class ChatSession(
    private val engine: ALCEngine,
    private val model: ModelInfo,
    private val settings: ChatSettings,
    input: InputStream,
    private val output: OutputStream,
) {
    private val messages = HostMessages(BufferedInputStream(input))
    private val writing = Mutex()
    private var contextUsed = 0

    // Not whether the answer's job is active: a host that has the last word of one may ask again.
    @Volatile
    private var answering = false

    /** How many turns were asked for. */
    var turns = 0
        private set

    /** Serves the host until it leaves or is gone. */
    suspend fun serve() {
        try {
            coroutineScope {
                ready()
                var answer: Job? = null
                while (true) {
                    val message = try {
                        withContext(Dispatchers.IO) { messages.next() }
                    } catch (wrong: InvalidRequestException) {
                        fail(wrong)
                        continue
                    }
                    when (message) {
                        null, is HostMessage.Bye -> break
                        is HostMessage.Stop -> engine.stop(CONVERSATION)
                        is HostMessage.Reset -> if (answering) refuse() else reset()
                        is HostMessage.Turn -> if (answering) {
                            refuse()
                        } else {
                            // Not dispatched, so that a stop that follows finds it.
                            answer = launch(start = CoroutineStart.UNDISPATCHED) { answer(message.text) }
                        }
                    }
                }
                answer?.cancel()
            }
        } catch (_: IOException) {
            // The host is gone, as its cable may be; that is the end of a chat, and no failure.
        }
    }

    private suspend fun ready() = send("ready") {
        put("schema", ChatSettings.SCHEMA)
        put("model", model.name)
        put("quantization", model.quantization)
        put("backend", model.backend)
        put("threads", model.threads)
        put("context", model.contextWindow)
    }

    private suspend fun reset() {
        engine.forget(CONVERSATION)
        contextUsed = 0
        send("reset") {}
    }

    private suspend fun answer(text: String) {
        val user = ChatMessage("user", text)
        val system = settings.system?.takeIf { contextUsed == 0 }?.let { ChatMessage("system", it) }
        val request = GenerationRequest(
            prompt = Prompt.Turn(listOfNotNull(system, user)),
            conversation = CONVERSATION,
            maxTokens = settings.maxTokens,
            sampling = settings.sampling(turns++),
            // Text waits for the line to the host; the model does not.
            streaming = StreamingPolicy.Coalesce(),
        )
        val timing = Timing()
        lateinit var last: GenerationEvent
        answering = true
        engine.generate(request).collect { event ->
            timing.take(event)
            last = event
            if (event is GenerationEvent.Tokens && event.text.isNotEmpty()) {
                send("piece") { put("text", event.text) }
            }
        }
        answering = false
        when (val event = last) {
            is GenerationEvent.Finished -> done(event, timing)
            is GenerationEvent.Failed -> fail(event.error)
            else -> error("an answer ended with $event")
        }
    }

    private suspend fun done(event: GenerationEvent.Finished, timing: Timing) {
        // An answer that was stopped before its prompt was read is no part of the conversation.
        if (timing.prefilled) contextUsed = event.usage.promptTokens + event.usage.completionTokens
        send("done") {
            put("reason", event.reason.name.lowercase())
            putJsonObject("usage") {
                put("prompt_tokens", event.usage.promptTokens)
                put("cached_tokens", event.usage.cachedTokens)
                put("completion_tokens", event.usage.completionTokens)
            }
            putJsonObject("timings") {
                put("first_token_ns", timing.firstTokenNanos)
                put("prefill_ns", timing.prefillNanos)
                put("decode_ns", timing.decodeNanos)
            }
            put("context_used", contextUsed)
        }
    }

    private suspend fun refuse() = fail(LifecycleException("an answer is being given; stop it first"))

    private suspend fun fail(failure: EngineException) = send("error") {
        put("kind", failure.kind)
        put("message", failure.message)
    }

    private suspend fun send(kind: String, fill: JsonObjectBuilder.() -> Unit) {
        val line = buildJsonObject {
            put("t", kind)
            fill()
        }
        val bytes = (line.toString() + "\n").toByteArray()
        writing.withLock {
            withContext(Dispatchers.IO) {
                output.write(bytes)
                output.flush()
            }
        }
    }

    /** The times of one answer, in nanoseconds: from the request to its first token, and so on. */
    private class Timing {
        private var requested = 0L
        private var first: Long? = null
        private var last = 0L

        var prefilled = false
            private set
        var prefillNanos = 0L
            private set
        val firstTokenNanos: Long? get() = first?.let { it - requested }
        val decodeNanos: Long get() = first?.let { last - it } ?: 0

        fun take(event: GenerationEvent) {
            when (event) {
                is GenerationEvent.Started -> requested = event.requestedNanos
                is GenerationEvent.Prefilled -> {
                    prefilled = true
                    prefillNanos = event.endNanos - event.startNanos
                }
                is GenerationEvent.Tokens -> if (event.nanos.isNotEmpty()) {
                    first = first ?: event.nanos.first()
                    last = event.nanos.last()
                }
                else -> Unit
            }
        }
    }

    private companion object {
        const val CONVERSATION = "chat"
    }
}
