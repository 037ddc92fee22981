package dev.alc.provider

import dev.alc.engine.GenerationEvent

/** Turns the engine's events of one answer into an app's, and keeps the times that it asks for. */
internal class AnswerProgress {
    private val text = StringBuilder()
    private var requestedNanos = 0L
    private var droppedMessages = 0
    private var firstNanos = 0L
    private var lastNanos = 0L
    private var tokens = 0

    /** What the app is told of [event]; null if nothing. */
    fun response(event: GenerationEvent): LLMResponse? = when (event) {
        is GenerationEvent.Started -> {
            requestedNanos = event.requestedNanos
            droppedMessages = event.droppedMessages
            null
        }
        is GenerationEvent.Prefilled -> null
        is GenerationEvent.Tokens -> piece(event)
        is GenerationEvent.Finished -> complete(event)
        is GenerationEvent.Failed -> LLMResponse.Error(event.error)
    }

    private fun piece(event: GenerationEvent.Tokens): LLMResponse? {
        if (event.nanos.isNotEmpty()) {
            if (tokens == 0) firstNanos = event.nanos.first()
            lastNanos = event.nanos.last()
            tokens += event.nanos.size
        }
        text.append(event.text)
        return if (event.text.isEmpty()) null else LLMResponse.Streaming(event.text)
    }

    private fun complete(event: GenerationEvent.Finished): LLMResponse {
        val decodeNanos = lastNanos - firstNanos
        return LLMResponse.Complete(
            text = text.toString(),
            reason = event.reason,
            usage = event.usage,
            droppedMessages = droppedMessages,
            timeToFirstTokenMs = if (tokens > 0) (firstNanos - requestedNanos) / NANOS_PER_MS else null,
            tokensPerSecond = if (decodeNanos > 0) (tokens - 1) * NANOS_PER_S / decodeNanos else null,
        )
    }

    private companion object {
        const val NANOS_PER_MS = 1e6
        const val NANOS_PER_S = 1e9
    }
}
