package dev.alc.engine

import dev.alc.engine.GenerationEvent.Failed
import dev.alc.engine.GenerationEvent.Finished
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.ExecutorCoroutineDispatcher
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.async
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.isActive
import kotlinx.coroutines.job
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import java.nio.FloatBuffer
import java.util.concurrent.Executors
import kotlin.coroutines.EmptyCoroutineContext

/**
 * Owns one model and its conversations, and answers requests one after the other.
 *
 * Everything native happens on one thread, the decode thread. A token's way: the model's logits
 * go to the request's [TopPSampler], the token to its [StreamingDetokenizer], token and text to
 * its [BackpressureStreamingManager], and from there to the collector of [generate], in the
 * collector's own context. `Generation.kt` is that way in code.
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

    // Work on the decode thread is nobody's child, so that nobody has to wait for a thread that hangs.
    private val decodeScope = CoroutineScope(SupervisorJob() + decode)
    private val watchdog = Watchdog(config.callTimeoutMillis, nanoTime)
    private val tickets = Tickets(config.maxQueued)
    private val visitors = Visitors()
    private val lifecycle = Mutex()

    // Whoever holds this has the model; waiting requests get it in the order in which they asked.
    private val turn = Mutex()
    private val mutableState = MutableStateFlow<EngineState>(EngineState.New)

    @Volatile
    private var loaded: Loaded? = null

    /** Where the engine is in its life. */
    public val state: StateFlow<EngineState> = mutableState.asStateFlow()

    /**
     * The loaded model's tokenizer.
     *
     * @throws LifecycleException if no model is loaded.
     */
    public val tokenizer: Tokenizer
        get() = ready().tokenizer

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
            mutableState.value = EngineState.Loading(null)
            try {
                checkAvailable()
                withContext(decode) { open(path, options) }
                ready().info.also { mutableState.value = EngineState.Ready(it) }
            } catch (failure: Throwable) {
                // Nested, because a change of dispatcher notices a cancellation on its way back.
                val second = runCatching { withContext(NonCancellable) { withContext(decode) { unload() } } }
                second.exceptionOrNull()?.let(failure::addSuppressed)
                mutableState.value = EngineState.New
                currentCoroutineContext().ensureActive()
                throw typed(failure)
            }
        }

    private fun checkAvailable() {
        val availability = strategy.isAvailable()
        if (availability is Availability.Unavailable) {
            throw StrategyUnavailableException(
                "${strategy.name} cannot run here: ${availability.missing.joinToString("; ")}",
            )
        }
    }

    /** Sets [loaded] itself, so that a cancellation on the way back loses nothing. */
    private suspend fun open(path: String, options: LoadOptions) {
        val model = strategy.loader().load(path, options) { mutableState.value = EngineState.Loading(it) }
        try {
            loaded = Loaded(model, watchdog, config.cacheBudgetBytes)
        } catch (failure: Throwable) {
            AutoCloseable(model::close).use { throw failure }
        }
    }

    /**
     * The answer to [request], as a cold flow: each collection is a request of its own.
     *
     * Every failure is a [Failed] event, and the flow then ends normally. Requests are served in
     * the order in which they are collected. Cancelling the collection takes effect within one
     * token, or one chunk of the prompt; the conversation is then what it was before, without
     * the request. See [stop] for ending an answer and keeping it.
     *
     * A call of the model that does not return within [EngineConfig.callTimeoutMillis] fails the
     * request, and every later one, with a [BackendTimeoutException].
     */
    public fun generate(request: GenerationRequest): Flow<GenerationEvent> = flow {
        val ticket = Ticket(request.conversation, nanoTime())
        val refusal = tickets.admit(ticket)
        if (refusal != null) {
            emit(Failed(refusal))
            return@flow
        }
        try {
            BackpressureStreamingManager(request.streaming, nanoTime).stream(this, EmptyCoroutineContext) { events ->
                try {
                    onDecodeThread { serve(request, ticket, events) }
                } catch (hang: BackendTimeoutException) {
                    if (ticket.claimLastEvent()) events.sendLast(Failed(hang))
                }
            }
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
        ticket.attach(currentCoroutineContext().job)
        val last = try {
            turn.withLock {
                val loaded = ready()
                ticket.begin()
                Generation(request, ticket, loaded, visitors, events, nanoTime).run()
            }
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
        if (ticket.claimLastEvent()) events.sendLast(last)
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
        inTurn { loaded ->
            val longest = loaded.info.prefillChunk
            val limit = loaded.conversations.limit
            if (tokens.size > limit) {
                throw ContextFullException("${tokens.size} tokens; the context holds $limit")
            }
            val scratch = Conversation(null)
            val all = scratch.plan(Prompt.Tokens(tokens), loaded.model).tokens
            if (chunks != null && (chunks.sum() != all.size || chunks.any { it !in 1..longest })) {
                throw InvalidRequestException("${all.size} tokens in chunks of 1 to $longest do not go as ${chunks.asList()}")
            }
            loaded.conversations.withCache(scratch, all.size) { cache ->
                for (size in chunks?.asList() ?: all.asList().chunked(longest) { it.size }) {
                    currentCoroutineContext().ensureActive()
                    if (visitors.waiting) visitors.letIn()
                    val piece = all.copyOfRange(cache.size, cache.size + size)
                    val first = cache.size
                    onRows(first, if (size == 1) cache.decode(piece[0]) else cache.verify(piece))
                }
            }
        }
    }

    /** Forgets [conversation] and frees its cache, in its turn. An unknown name does nothing. */
    public suspend fun forget(conversation: String): Unit = inTurn { it.conversations.forget(conversation) }

    /**
     * Starts a conversation named [to] that is what [from] is now; then each goes its own way. The
     * two share the memory of what they have in common where the backend can, though each counts in
     * full towards the budget. A copy for which there is no cache computes its tokens at its first
     * turn. Does not wait for requests of other conversations.
     *
     * @throws InvalidRequestException if [from] is unknown, or [to] is empty or exists.
     * @throws LifecycleException if either has a request that is not finished.
     * @throws EngineException as [generate] fails.
     */
    public suspend fun fork(from: String, to: String): Unit = visit {
        checkIdle(from)
        checkIdle(to)
        it.conversations.fork(from, to)
    }

    /**
     * Keeps the first [tokens] tokens of [conversation] and drops the rest. Where that cuts a turn
     * in two, the conversation goes on as text, with [Prompt.Text] or [Prompt.Tokens], or begins
     * anew with [Prompt.Chat]. Does not wait for requests of other conversations.
     *
     * @throws InvalidRequestException if [conversation] is unknown or has fewer tokens.
     * @throws LifecycleException if it has a request that is not finished.
     * @throws EngineException as [generate] fails.
     */
    public suspend fun trim(conversation: String, tokens: Int): Unit = visit {
        checkIdle(conversation)
        it.conversations.trim(conversation, tokens)
    }

    /**
     * Keeps the first [turns] turns of [conversation], each a request with its answer, and drops the
     * rest, as for asking again. A request that did not go on where the last ended, such as one
     * for which old turns were dropped, is the first turn. Fails as [trim] does.
     */
    public suspend fun trimTurns(conversation: String, turns: Int): Unit = visit {
        checkIdle(conversation)
        it.conversations.trimTurns(conversation, turns)
    }

    /**
     * Frees the caches of all conversations that are not being answered, for when the system is
     * low on memory. The conversations stay; their next turns compute their tokens again. Takes
     * effect within one token also while a request is answered.
     */
    public suspend fun dropIdleCaches(): Unit = visit { it.conversations.dropIdleCaches() }

    /** What the key/value cache holds, also while a request is answered. */
    public suspend fun cacheCounters(): KvCounters = visit { it.conversations.counters() }

    /**
     * Ends every request, gives back model, cache and thread. Returns when that is done; calling
     * it again does nothing. If a model is being loaded it waits for that, but not for a call of
     * the model that hangs: what that holds is given back if it ever returns.
     *
     * @throws BackendException if the backend fails at that; the engine is closed all the same.
     */
    public suspend fun close() {
        withContext(NonCancellable) {
            lifecycle.withLock {
                if (mutableState.value == EngineState.Closed) return@withLock
                mutableState.value = EngineState.Closed
                tickets.close()
                val leaving = decodeScope.async {
                    AutoCloseable { ownDispatcher?.close() }.use { turn.withLock { unload() } }
                }
                try {
                    watchdog.join(leaving)
                    leaving.await()
                } catch (failure: Throwable) {
                    if (!watchdog.hung) throw typed(failure)
                }
            }
        }
    }

    private fun unload() {
        val leaving = loaded
        loaded = null
        leaving?.close()
    }

    /** Runs [block] when the model is free, in the order of requests. */
    private suspend fun <T> inTurn(block: suspend (Loaded) -> T): T =
        call { onDecodeThread { turn.withLock { block(ready()) } } }

    /** Runs [block] between two calls of the model, whoever has it. */
    private suspend fun <T> visit(block: (Loaded) -> T): T =
        call { visitors.announce { onDecodeThread { block(ready()) } } }

    private suspend fun <T> call(block: suspend () -> T): T {
        ready()
        try {
            return block()
        } catch (failure: Throwable) {
            // A decode thread that has ended cancels what is given to it, but not the caller.
            currentCoroutineContext().ensureActive()
            ready()
            throw typed(failure)
        }
    }

    /** Runs [work] on the decode thread; waits for its end unless that thread hangs. */
    private suspend fun <T> onDecodeThread(work: suspend () -> T): T {
        val running = decodeScope.async { work() }
        try {
            watchdog.await(running)
        } catch (hang: BackendTimeoutException) {
            mutableState.update { if (it == EngineState.Closed) it else EngineState.Hung }
            throw hang
        }
        return running.await()
    }

    private fun checkIdle(conversation: String) {
        if (tickets.busy(conversation)) {
            throw LifecycleException("$conversation has a request that is not finished")
        }
    }

    private fun ready(): Loaded {
        val state = mutableState.value
        if (state != EngineState.Closed && watchdog.hung) throw watchdog.failure()
        return loaded?.takeIf { state != EngineState.Closed } ?: throw LifecycleException(
            when (state) {
                EngineState.New -> "no model is loaded; call load first"
                is EngineState.Loading -> "the model is still being loaded"
                else -> "the engine is closed"
            },
        )
    }

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
