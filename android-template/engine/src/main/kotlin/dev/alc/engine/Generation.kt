package dev.alc.engine

import dev.alc.engine.GenerationEvent.Finished
import dev.alc.engine.GenerationEvent.Prefilled
import dev.alc.engine.GenerationEvent.Started
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.job
import java.nio.FloatBuffer

/**
 * One request while it has the model, on the decode thread.
 *
 * The conversation plans which tokens the answer follows; what the cache lacks of them is computed
 * (prefill). Then, token after token: the model's logits go to the [TopPSampler], with the tokens
 * that a [TokenConstraint] allows; the token that it chooses goes to the [Answer], which turns it
 * into text and looks for stops; both go to the collector through [events]; and the model computes
 * the token's own logits (decode). At the end the answer becomes part of the conversation.
 */
internal class Generation(
    private val request: GenerationRequest,
    private val ticket: Ticket,
    private val loaded: Loaded,
    private val visitors: Visitors,
    private val events: BackpressureStreamingManager,
    private val nanoTime: () -> Long,
) {
    private val info = loaded.info
    private val limit = loaded.conversations.limit

    /** Answers the request; what the collector has not been sent yet is its last event. */
    suspend fun run(): Finished {
        val startNanos = nanoTime()
        val conversation = loaded.conversations.getOrNew(request.conversation)
        val whole = conversation.plan(request.prompt, loaded.model)
        val plan = fitting(whole, conversation)
        val prompt = plan.tokens
        val room = prompt.size + minOf(request.maxTokens, limit - prompt.size)
        return loaded.conversations.withCache(conversation, room) { cache ->
            // The last token is computed in any case, for its logits.
            val cached = cache.rewind(prompt, most = prompt.size - 1)
            val dropped = whole.messages.size - plan.messages.size
            events.send(Started(prompt, cached, dropped, ticket.requestedNanos, startNanos))
            val answer = Answer(loaded.tokenizer, request.maxTokens, request.stop)
            val reason = answer(cache, prompt, answer)
            // A prompt that was not computed to its end has no answer, not even an empty one.
            if (reason != null) {
                conversation.commit(plan, answer)
                loaded.conversations.add(conversation)
            }
            Finished(reason ?: FinishReason.CANCELLED, Usage(prompt.size, cached, answer.size), nanoTime())
        }
    }

    private fun fitting(plan: Conversation.Plan, conversation: Conversation): Conversation.Plan {
        val shorter = when (request.contextPolicy) {
            ContextPolicy.REFUSE -> plan
            ContextPolicy.DROP_OLDEST_TURNS ->
                if (plan.tokens.size <= limit - request.maxTokens) {
                    plan
                } else {
                    conversation.shorten(plan, limit - request.maxTokens, loaded.model)
                }
        }
        if (shorter.tokens.size >= limit) {
            throw ContextFullException(
                "the prompt and what came before it are ${shorter.tokens.size} tokens; " +
                    "the context holds $limit, the answer included",
            )
        }
        return shorter
    }

    /** Computes [prompt] and then [answer]; why it ended, or null if [prompt] was not computed. */
    private suspend fun answer(cache: Cache, prompt: IntArray, answer: Answer): FinishReason? {
        val sampler = TopPSampler(request.sampling, info.vocabSize)
        prompt.forEach(sampler::prompt)
        val startNanos = nanoTime()
        val cached = cache.size
        val logits = prefill(cache, prompt) ?: return null
        events.send(Prefilled(prompt.size - cached, startNanos, nanoTime()))
        val reason = decode(cache, logits, sampler, answer, limit - prompt.size)
        answer.rest()?.let { events.send(it) }
        return if (answer.stopped) FinishReason.STOP else reason
    }

    /** Computes what [cache] lacks of [prompt]; the logits after it, or null if stopped on the way. */
    private suspend fun prefill(cache: Cache, prompt: IntArray): FloatBuffer? {
        while (true) {
            breathe()
            if (ticket.stopped) return null
            val end = minOf(cache.size + info.prefillChunk, prompt.size)
            val logits = cache.prefill(prompt.copyOfRange(cache.size, end))
            if (end == prompt.size) return logits
        }
    }

    /** From the [first] logits to the end of [answer], for which there is [room]. */
    private suspend fun decode(
        cache: Cache,
        first: FloatBuffer,
        sampler: TopPSampler,
        answer: Answer,
        room: Int,
    ): FinishReason {
        val constraint = when (request.responseFormat) {
            ResponseFormat.TEXT -> null
            ResponseFormat.JSON -> loaded.json.begin()
        }
        var logits = first
        while (true) {
            if (ticket.stopped) return FinishReason.CANCELLED
            val token = sampler.sample(logits, constraint?.allowed())
            if (token in loaded.eosTokens) return FinishReason.STOP
            events.send(answer.add(token, nanoTime()))
            if (answer.stopped) return FinishReason.STOP
            constraint?.accept(token)
            if (constraint != null && constraint.finished) return FinishReason.STOP
            if (answer.size == request.maxTokens || answer.size == room) return FinishReason.LENGTH
            sampler.accept(token)
            breathe()
            logits = cache.decode(token)
        }
    }

    /** Between two calls of the model: ends where cancelled, and lets [visitors] in. */
    private suspend fun breathe() {
        currentCoroutineContext().job.ensureActive()
        if (visitors.waiting) visitors.letIn()
    }
}
