package dev.alc.app

import dev.alc.engine.GenerationEvent
import dev.alc.engine.MetricsLog
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.buildJsonArray
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put

/**
 * Follows the events of one generation: timing records go to the [log] as they come, tokens in
 * batches, and in the end it has the step's entry of the result.
 */
internal class StepRecorder(
    private val step: DoorStep,
    private val log: MetricsLog,
    private val nanoTime: () -> Long,
) {
    private val ids = ArrayList<Int>()
    private val nanos = ArrayList<Long>()
    private val chunks = ArrayList<JsonArray>()
    private val text = StringBuilder()
    private var prompt = IntArray(0)
    private var cached = 0
    private var reason = "error"
    private var flushed = 0
    private var flushedNanos = 0L

    /** Tokens so far. */
    val tokens: Int get() = ids.size

    fun started(event: GenerationEvent.Started) {
        prompt = event.promptTokenIds
        cached = event.cachedTokens
        log.append(
            record("request") {
                put("conversation", step.conversation)
                put("start_ns", event.requestedNanos)
                put("prompt_tokens", prompt.size - cached)
                put("cached_tokens", cached)
            },
        )
    }

    fun prefilled(event: GenerationEvent.Prefilled) {
        log.append(
            record("prefill") {
                put("start_ns", event.startNanos)
                put("end_ns", event.endNanos)
                put("tokens", event.tokens)
            },
        )
        flushedNanos = event.endNanos
    }

    fun tokens(event: GenerationEvent.Tokens) {
        ids += event.ids.asList()
        nanos += event.nanos.asList()
        if (event.text.isNotEmpty()) {
            text.append(event.text)
            chunks += buildJsonArray {
                add(nanoTime())
                add(event.text)
            }
        }
        if (ids.size - flushed >= BATCH_TOKENS || nanoTime() - flushedNanos >= BATCH_NANOS) flush()
    }

    fun finished(event: GenerationEvent.Finished) {
        flush()
        reason = event.reason.name.lowercase()
        log.append(
            record("finish") {
                put("end_ns", event.endNanos)
                put("reason", reason)
                put("tokens", ids.size)
            },
        )
    }

    /** What `result.json` says of this step; `prompt_tokens` counts the new ones, not the cached. */
    fun result(): JsonObject = buildJsonObject {
        put("id", step.id)
        put("conversation", step.conversation)
        put("prompt", step.prompt)
        put("text", text.toString())
        put("token_ids", numbers(ids))
        put("prompt_token_ids", numbers(prompt.asList()))
        put("prompt_tokens", prompt.size - cached)
        put("cached_tokens", cached)
        put("finish_reason", reason)
        put("chunks", JsonArray(chunks))
    }

    private fun flush() {
        if (flushed == ids.size) return
        log.append(
            record("tokens") {
                put("first", flushed)
                put("ids", numbers(ids.subList(flushed, ids.size)))
                put("ns", numbers(nanos.subList(flushed, nanos.size)))
            },
        )
        flushed = ids.size
        flushedNanos = nanoTime()
    }

    private inline fun record(
        kind: String,
        crossinline fill: JsonObjectBuilder.() -> Unit,
    ): String = buildJsonObject {
        put("t", kind)
        put("step", step.id)
        fill()
    }.toString()

    private fun numbers(values: List<Number>) = JsonArray(values.map { JsonPrimitive(it) })

    private companion object {
        const val BATCH_TOKENS = 16
        const val BATCH_NANOS = 500_000_000L
    }
}
