package dev.alc.engine

import dev.alc.engine.GenerationEvent.Failed
import dev.alc.engine.GenerationEvent.Finished
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.ExecutorCoroutineDispatcher
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.isActive
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import java.nio.FloatBuffer
import java.util.concurrent.Executors

/**
 * Owns one model and its conversations, and answers requests one after the other.
 *
 * Everything native happens on one thread, the decode thread. A token's way: the model's logits
 * go to the request's [TopPSampler], the token to its [StreamingDetokenizer], token and text to
 * its [BackpressureStreamingManager], and from there to the collector of [generate], in the
 * collector's own context.
 *
 * Safe for use from any thread. It does not retry, does not talk to a network, and does not
 * write anything.
 *
 * @param strategy what runs the model.
 * @param nanoTime the clock of all times in events; must never go back.
 * @param dispatcher where the model runs; must be one thread. Null gives the engine a thread of
 *   its own, which [close] ends.
 */
public class ALCEngine(
    private val strategy: InferenceStrategy,
    private val config: EngineConfig = EngineConfig(),
    private val nanoTime: () -> Long = System::nanoTime,
    dispatcher: CoroutineDispatcher? = null,
) {
    private val ownDispatcher: ExecutorCoroutineDispatcher? =
        if (dispatcher == null) decodeThread() else null
    private val decode: CoroutineDispatcher = dispatcher ?: ownDispatcher!!
    private val tickets = Tickets(config.maxQueued)
    private val lifecycle = Mutex()

    // Whoever holds this has the model; waiting requests get it in the order in which they asked.
    private val turn = Mutex()
    private val conversations = HashMap<String, Conversation>()
    private val mutableState = MutableStateFlow<EngineState>(EngineState.New)

    @Volatile
    private var loaded: Loaded? = null

    private class Loaded(val model: LoadedModel, val memory: KVCacheMemoryManager) {
        val limit = minOf(model.info.contextWindow, memory.capacityTokens)
    }

    /** Where the engine is in its life. */
    public val state: StateFlow<EngineState> = mutableState.asStateFlow()

    /**
     * The loaded model's tokenizer.
     *
     * @throws LifecycleException if no model is loaded.
     */
    public val tokenizer: Tokenizer
        get() = ready().model.tokenizer

    /**
     * Loads the model at [path] and returns what it is. After a failure or a cancellation the
     * engine is new again.
     *
     * @throws LifecycleException if a model is loaded already or the engine is closed.
     * @throws StrategyUnavailableException if the strategy cannot run here.
     * @throws EngineException as [ModelLoader.load] says.
     */
    public suspend fun load(path: String, options: LoadOptions = LoadOptions()): ModelInfo =
        lifecycle.withLock {
            when (mutableState.value) {
                EngineState.New -> Unit
                EngineState.Closed -> throw LifecycleException("the engine is closed")
                else -> throw LifecycleException("a model is loaded already; an engine has one")
            }
            val availability = strategy.isAvailable()
            if (availability is Availability.Unavailable) {
                throw StrategyUnavailableException(
                    "${strategy.name} cannot run here: ${availability.missing.joinToString("; ")}",
                )
            }
            mutableState.value = EngineState.Loading(null)
            try {
                val result = withContext(decode) { open(path, options) }
                mutableState.value = EngineState.Ready(result.model.info)
                result.model.info
            } catch (failure: Throwable) {
                // Nested, because a change of dispatcher notices a cancellation on its way back.
                withContext(NonCancellable) { withContext(decode) { unload() } }
                mutableState.value = EngineState.New
                throw if (failure is CancellationException) failure else typed(failure)
            }
        }

    /** Sets [loaded] itself, so that a cancellation on the way back loses nothing. */
    private suspend fun open(path: String, options: LoadOptions): Loaded {
        val model = strategy.loader().load(path, options) { mutableState.value = EngineState.Loading(it) }
        val memory = KVCacheMemoryManager(model.info.kv, model.cache, config.cacheBudgetBytes)
        return Loaded(model, memory).also { loaded = it }
    }

    /**
     * The answer to [request], as a cold flow: each collection is a request of its own.
     *
     * Every failure is a [Failed] event, and the flow then ends normally. Requests are served in
     * the order in which they are collected. Cancelling the collection takes effect within one
     * token, or one chunk of the prompt; the conversation is then what it was before, without
     * the request. See [stop] for ending an answer and keeping it.
     */
    public fun generate(request: GenerationRequest): Flow<GenerationEvent> = flow {
        val ticket = Ticket(request.conversation, nanoTime())
        val refusal = tickets.admit(ticket)
        if (refusal != null) {
            emit(Failed(refusal))
            return@flow
        }
        try {
            val streaming = BackpressureStreamingManager(request.streaming, nanoTime)
            streaming.stream(this, decode) { serve(request, ticket, it) }
            // The decode thread ended between the admission and the first step.
            if (!ticket.answered) emit(Failed(LifecycleException(CLOSED_MEANWHILE)))
        } finally {
            tickets.leave(ticket)
        }
    }

    private suspend fun serve(
        request: GenerationRequest,
        ticket: Ticket,
        events: BackpressureStreamingManager,
    ) {
        ticket.attach(currentCoroutineContext())
        val last = try {
            turn.withLock { answer(request, ticket, events) }
        } catch (cancelled: CancellationException) {
            when (ticket.ending) {
                Ticket.Ending.STOP -> Finished(FinishReason.CANCELLED, Usage(0, 0, 0), nanoTime())
                Ticket.Ending.CLOSE -> Failed(LifecycleException(CLOSED_MEANWHILE))
                // Only a cancelled collector makes this coroutine inactive.
                null -> if (currentCoroutineContext().isActive) Failed(typed(cancelled)) else throw cancelled
            }
        } catch (failure: Throwable) {
            Failed(typed(failure))
        }
        ticket.answered = true
        events.sendLast(last)
    }

    private suspend fun answer(
        request: GenerationRequest,
        ticket: Ticket,
        events: BackpressureStreamingManager,
    ): Finished {
        val (model, memory, limit) = ready().run { Triple(model, memory, limit) }
        ticket.begin()
        val conversation = request.conversation?.let(conversations::get) ?: Conversation(request.conversation)
        val startNanos = nanoTime()
        val plan = conversation.plan(request.prompt, model)
        val prompt = plan.tokens
        if (prompt.size >= limit) {
            throw ContextFullException(
                "the prompt and what came before it are ${prompt.size} tokens; " +
                    "the context holds $limit, the answer included",
            )
        }
        evict(memory.reserve(conversation, minOf(prompt.size + request.maxTokens, limit)))
        var outcome = Outcome.BROKEN
        try {
            val session = conversation.session ?: model.openSession().also { conversation.session = it }
            val cached = conversation.rewind(plan)
            outcome = Outcome.ROLLED_BACK
            events.send(GenerationEvent.Started(prompt, cached, ticket.requestedNanos, startNanos))

            val sampler = TopPSampler(request.sampling, model.info.vocabSize)
            prompt.forEach(sampler::prompt)
            val answer = Answer(model.tokenizer, request.maxTokens)
            val usage = { Usage(prompt.size, cached, answer.size) }

            val prefillNanos = nanoTime()
            var logits = prefill(session, prompt, cached, model.info.prefillChunk, ticket)
                ?: return Finished(FinishReason.CANCELLED, usage(), nanoTime())
            events.send(GenerationEvent.Prefilled(prompt.size - cached, prefillNanos, nanoTime()))

            val reason: FinishReason
            while (true) {
                if (ticket.stopped) {
                    reason = FinishReason.CANCELLED
                    break
                }
                val token = sampler.sample(logits)
                if (token in model.info.eosTokenIds) {
                    reason = FinishReason.STOP
                    break
                }
                events.send(answer.add(token, nanoTime()))
                sampler.accept(token)
                if (answer.size == request.maxTokens || prompt.size + answer.size == limit) {
                    reason = FinishReason.LENGTH
                    break
                }
                currentCoroutineContext().ensureActive()
                outcome = Outcome.BROKEN
                logits = session.decode(token)
                outcome = Outcome.ROLLED_BACK
            }
            answer.rest()?.let { events.send(it) }
            val finished = Finished(reason, usage(), nanoTime())
            conversation.commit(plan, answer.ids(), answer.text)
            outcome = Outcome.KEPT
            return finished
        } finally {
            settle(conversation, outcome, memory)
        }
    }

    /** Computes [prompt] from [from] on; the logits after it, or null if stopped on the way. */
    private suspend fun prefill(
        session: ModelSession,
        prompt: IntArray,
        from: Int,
        chunk: Int,
        ticket: Ticket,
    ): FloatBuffer? {
        var at = from
        while (true) {
            currentCoroutineContext().ensureActive()
            if (ticket.stopped) return null
            val end = minOf(at + chunk, prompt.size)
            val logits = session.prefill(prompt.copyOfRange(at, end))
            if (end == prompt.size) return logits
            at = end
        }
    }

    /** Leaves the cache as the end of a request demands. */
    private fun settle(conversation: Conversation, outcome: Outcome, memory: KVCacheMemoryManager) {
        val session = conversation.session
        if (conversation.name == null || outcome == Outcome.BROKEN || session == null) {
            conversation.session = null
            memory.release(conversation)
            session?.close()
        } else {
            // A rolled-back request's own tokens are of no further use.
            if (session.length > conversation.tokens.size) session.trim(conversation.tokens.size)
            memory.idle(conversation, session.length)
        }
        if (conversation.name != null && outcome == Outcome.KEPT) {
            conversations[conversation.name] = conversation
        } else if (conversation.name !in conversations && conversation.session != null) {
            conversation.session = null
            memory.release(conversation)
            session?.close()
        }
    }

    private fun evict(owners: List<Any>) {
        for (owner in owners) {
            owner as Conversation
            owner.session?.close()
            owner.session = null
        }
    }

    /**
     * Ends the answer of [conversation], or every answer if null, within one token. What came so
     * far stays part of the conversation, and its flow ends with [FinishReason.CANCELLED].
     * A request that still waits for its turn ends without an answer.
     */
    public fun stop(conversation: String? = null) {
        tickets.end(Ticket.Ending.STOP, conversation)
    }

    /**
     * The model's logits at every position of [tokens], as it would read them from an empty
     * cache. [onRows] gets, on the decode thread and in order, the index of the first position
     * and that position's rows, `vocabSize` floats each, valid during the call.
     *
     * @param chunks how many tokens go through each call of the model, where 1 is a decoding
     *   step; by default as many as it takes.
     * @throws InvalidRequestException if [tokens] is empty or holds an unknown id, or [chunks] are
     *   not [tokens] cut into pieces that the model takes.
     * @throws ContextFullException if they do not fit the context.
     * @throws EngineException as [generate] fails.
     */
    public suspend fun score(
        tokens: IntArray,
        chunks: IntArray? = null,
        onRows: (first: Int, rows: FloatBuffer) -> Unit,
    ) {
        withModel { (model, memory, limit) ->
            val longest = model.info.prefillChunk
            if (tokens.size > limit) {
                throw ContextFullException("${tokens.size} tokens; the context holds $limit")
            }
            val scratch = Conversation(null)
            val all = scratch.plan(Prompt.Tokens(tokens), model).tokens
            if (chunks != null && (chunks.sum() != all.size || chunks.any { it !in 1..longest })) {
                throw InvalidRequestException("${all.size} tokens in chunks of 1 to $longest do not go as ${chunks.asList()}")
            }
            evict(memory.reserve(scratch, all.size))
            try {
                val session = model.openSession().also { scratch.session = it }
                var first = 0
                for (size in chunks?.asList() ?: all.asList().chunked(longest) { it.size }) {
                    currentCoroutineContext().ensureActive()
                    val piece = all.copyOfRange(first, first + size)
                    onRows(first, if (size == 1) session.decode(piece[0]) else session.verify(piece))
                    first += size
                }
            } finally {
                settle(scratch, Outcome.KEPT, memory)
            }
        }
    }

    /** Forgets [conversation] and frees its cache. An unknown name does nothing. */
    public suspend fun forget(conversation: String) {
        withModel { (_, memory, _) ->
            val gone = conversations.remove(conversation) ?: return@withModel
            memory.release(gone)
            gone.session?.close()
            gone.session = null
        }
    }

    /**
     * Frees the caches of all conversations that are not being answered, for when the system is
     * low on memory. The conversations stay; their next turns compute their tokens again.
     */
    public suspend fun dropIdleCaches() {
        withModel { (_, memory, _) -> evict(memory.releaseIdle()) }
    }

    /** What the key/value cache holds. */
    public suspend fun cacheCounters(): KvCounters {
        lateinit var counters: KvCounters
        withModel { (_, memory, _) -> counters = memory.counters() }
        return counters
    }

    /**
     * Ends every request, gives back model, cache and thread. Returns when that is done; calling
     * it again does nothing. If a model is being loaded it waits for that.
     */
    public suspend fun close() {
        withContext(NonCancellable) {
            lifecycle.withLock {
                if (mutableState.value == EngineState.Closed) return@withLock
                mutableState.value = EngineState.Closed
                tickets.close()
                turn.withLock { withContext(decode) { unload() } }
                ownDispatcher?.close()
            }
        }
    }

    private fun unload() {
        for (conversation in conversations.values) conversation.session?.close()
        conversations.clear()
        val model = loaded?.model
        loaded = null
        model?.close()
    }

    private suspend fun withModel(block: suspend (Triple<LoadedModel, KVCacheMemoryManager, Int>) -> Unit) {
        ready()
        try {
            withContext(decode) {
                turn.withLock { block(ready().run { Triple(model, memory, limit) }) }
            }
        } catch (failure: Throwable) {
            // A decode thread that has ended cancels what is given to it, but not the caller.
            currentCoroutineContext().ensureActive()
            ready()
            throw typed(failure)
        }
    }

    private fun ready(): Loaded = loaded?.takeIf { mutableState.value != EngineState.Closed }
        ?: throw LifecycleException(
            when (mutableState.value) {
                EngineState.New -> "no model is loaded; call load first"
                is EngineState.Loading -> "the model is still being loaded"
                else -> "the engine is closed"
            },
        )

    /** What is left of a request in its conversation's cache. */
    private enum class Outcome { KEPT, ROLLED_BACK, BROKEN }

    private companion object {
        const val CLOSED_MEANWHILE = "the engine was closed"

        fun typed(failure: Throwable): EngineException = failure as? EngineException
            ?: BackendException("unexpected ${failure.javaClass.name}: ${failure.message}", failure)

        fun decodeThread(): ExecutorCoroutineDispatcher =
            Executors.newSingleThreadExecutor { task ->
                Thread(task, "alc-decode").apply { isDaemon = true }
            }.asCoroutineDispatcher()
    }
}
