package dev.alc.provider

import dev.alc.engine.ALCEngine
import dev.alc.engine.Availability
import dev.alc.engine.BackendException
import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineConfig
import dev.alc.engine.EngineException
import dev.alc.engine.EngineState
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.InferenceStrategy
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadProgress
import dev.alc.engine.Prompt
import dev.alc.engine.QueueFullException
import dev.alc.runtime.MLCInferenceStrategy
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.last
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import java.io.File
import java.util.concurrent.atomic.AtomicInteger

/**
 * A language model on this device, for apps: private, streaming, safe to use from any thread.
 *
 * Nothing here throws for what can go wrong with a model or a request: [initialize] returns a
 * failed [Result], and answers end with [LLMResponse.Error]. Only a cancelled coroutine sees its
 * `CancellationException`.
 *
 * It loads one model at a time. It does not download models, does not talk to a network, and keeps
 * nothing after [cleanup].
 */
public class LocalLLMProvider internal constructor(
    private val strategy: InferenceStrategy,
    private val config: EngineConfig,
) {
    private val lifecycle = Mutex()
    private val answering = AtomicInteger()

    // From the beginning of initialize until cleanup, or until the model fails to load.
    @Volatile
    private var engine: ALCEngine? = null

    @Volatile
    private var info: LLMInfo? = null

    /** A provider that runs its models with [strategy]. */
    public constructor(strategy: InferenceStrategy) : this(strategy, EngineConfig())

    /**
     * A provider that runs MLC's packages with the runtime that the app carries.
     *
     * @param codeCache a folder of the app in which libraries may be executed, on Android
     *   `Context.getCodeCacheDir()`.
     */
    public constructor(codeCache: File) : this(MLCInferenceStrategy(codeCache))

    /**
     * Loads a model, in the background whatever thread calls. Every failure is an
     * [EngineException] in the result, and the provider can then be initialized again; cancelling
     * the caller stops loading and gives everything back. A model that needs more than
     * [LLMConfig.maxMemoryMB] is refused before it takes any memory.
     *
     * @param onProgress how far loading is, now and then, in the caller's context.
     */
    public suspend fun initialize(
        config: LLMConfig,
        onProgress: (LoadProgress) -> Unit = {},
    ): Result<LLMInfo> = lifecycle.withLock {
        if (engine != null) {
            return Result.failure(LifecycleException("a model is loaded already; call cleanup() first"))
        }
        val fresh = ALCEngine(strategy, this.config)
        engine = fresh
        try {
            val loaded = load(fresh, config, onProgress)
            info = loaded
            Result.success(loaded)
        } catch (failure: Throwable) {
            currentCoroutineContext().ensureActive()
            Result.failure(typed(failure))
        } finally {
            if (info == null) release(fresh)
        }
    }

    private suspend fun load(
        engine: ALCEngine,
        config: LLMConfig,
        onProgress: (LoadProgress) -> Unit,
    ): LLMInfo = coroutineScope {
        val options = try {
            LoadOptions(
                threads = config.threads,
                contextTokens = config.contextTokens,
                maxMemoryBytes = config.maxMemoryMB * BYTES_PER_MIB,
                cpuVariant = config.cpuVariant,
                bigCoresOnly = config.bigCoresOnly,
            )
        } catch (problem: IllegalArgumentException) {
            throw InvalidRequestException(problem.message ?: "wrong options", problem)
        }
        val watcher = launch {
            engine.state.collect { (it as? EngineState.Loading)?.progress?.let(onProgress) }
        }
        val model = engine.load(config.modelPath, options)
        watcher.cancel()
        LLMInfo(
            engine = strategy.name,
            runtime = model.runtime,
            model = model.name,
            quantization = model.quantization,
            backend = model.backend,
            contextTokens = minOf(model.contextWindow, config.contextTokens ?: model.contextWindow),
            memoryBytes = model.weightsBytes + model.workBytes + engine.cacheCounters().budgetBytes,
        )
    }

    /**
     * The answer to one [prompt], on its own; a cold flow that asks each time it is collected.
     * It neither sees nor changes the conversations of [chat].
     */
    public fun generateResponse(
        prompt: String,
        options: GenerationOptions = GenerationOptions(),
    ): Flow<LLMResponse> = answer(listOf(ChatMessage("user", prompt)), options, conversation = null)

    /**
     * The next answer of a conversation, given all of its [messages], as a cold flow. The
     * key/value cache of [conversation] is used as far as the messages begin as those before did,
     * so a turn computes its new tokens only. Messages may be changed, dropped, or asked again.
     *
     * Cancelling the collection forgets the request; [stop] ends the answer and keeps it.
     *
     * @param conversation a name of the app's own, for apps with several conversations.
     */
    public fun chat(
        messages: List<ChatMessage>,
        options: GenerationOptions = GenerationOptions(),
        conversation: String = "chat",
    ): Flow<LLMResponse> = answer(messages, options, conversation)

    private fun answer(
        messages: List<ChatMessage>,
        options: GenerationOptions,
        conversation: String?,
    ): Flow<LLMResponse> {
        // A copy, since the app's list may grow while the answer is made.
        val prompt = Prompt.Chat(messages.toList())
        return flow {
            val engine = engine ?: return@flow emit(LLMResponse.Error(LifecycleException(NOT_LOADED)))
            val request = try {
                if (prompt.messages.lastOrNull()?.content.isNullOrEmpty()) {
                    throw InvalidRequestException("the prompt is empty")
                }
                options.request(prompt, conversation)
            } catch (refused: InvalidRequestException) {
                return@flow emit(LLMResponse.Error(refused))
            }
            val progress = AnswerProgress()
            answering.incrementAndGet()
            try {
                engine.generate(request).collect { event -> progress.response(event)?.let { emit(it) } }
            } finally {
                answering.decrementAndGet()
            }
        }
    }

    /**
     * Ends the answer of [conversation], or every answer if null, within one token. What came so
     * far stays part of the conversation, and the flow ends with [LLMResponse.Complete].
     */
    public fun stop(conversation: String? = null) {
        engine?.stop(conversation)
    }

    /**
     * Whether requests are answered, and if not why. Where nothing is being answered, the model
     * computes one token to find out, which may cost the conversation that was unused longest its
     * cache, if there is no room besides. A running answer is not disturbed: that it goes on is
     * what shows that the model works.
     */
    public suspend fun checkHealth(): LLMHealth {
        val engine = engine ?: return checkStrategy()
        val state = engine.state.value
        val info = info ?: return LLMHealth.Loading((state as? EngineState.Loading)?.progress)
        if (answering.get() > 0 && state is EngineState.Ready) return LLMHealth.Healthy(info, busy = true)
        val probe = GenerationRequest(Prompt.Tokens(intArrayOf(0)), maxTokens = 1)
        val last = engine.generate(probe).last()
        val error = (last as? GenerationEvent.Failed)?.error
        return when (error) {
            null, is QueueFullException -> LLMHealth.Healthy(info, busy = error != null)
            is LifecycleException -> LLMHealth.NotLoaded
            else -> LLMHealth.Unusable(error)
        }
    }

    private fun checkStrategy(): LLMHealth = try {
        when (val availability = strategy.isAvailable()) {
            is Availability.Available -> LLMHealth.NotLoaded
            is Availability.Unavailable -> LLMHealth.Unavailable(availability.missing)
        }
    } catch (failure: Throwable) {
        LLMHealth.Unusable(typed(failure))
    }

    /** What an answer to [prompt] costs, in any currency: always 0, since nothing leaves the device. */
    public fun estimateCost(
        prompt: String,
        options: GenerationOptions = GenerationOptions(),
    ): Double = 0.0

    /** What is loaded; null before [initialize] and after [cleanup]. */
    public fun getInfo(): LLMInfo? = info

    /**
     * Gives up the caches of conversations that are not being answered where [level], one of
     * Android's `ComponentCallbacks2.TRIM_MEMORY_...`, says that memory is short. Their next turns
     * compute their tokens again; no text is lost. Weights and the cache's pool stay: see
     * [cleanup] for those.
     */
    public suspend fun trimMemory(level: Int) {
        if (level < TRIM_MEMORY_RUNNING_LOW || level == TRIM_MEMORY_UI_HIDDEN) return
        try {
            engine?.dropIdleCaches()
        } catch (_: EngineException) {
            // Not loaded or closed: no cache is left. Anything worse is for checkHealth to tell.
        }
    }

    /**
     * Ends every answer with an [LLMResponse.Error] and gives back model and memory; [initialize]
     * may follow. It waits while a model is being loaded: cancel that first. A failed result says
     * that the backend failed at giving back; nothing is left to do about it.
     */
    public suspend fun cleanup(): Result<Unit> = lifecycle.withLock {
        engine?.let { release(it) } ?: Result.success(Unit)
    }

    private suspend fun release(engine: ALCEngine): Result<Unit> {
        info = null
        this.engine = null
        return try {
            engine.close()
            Result.success(Unit)
        } catch (failure: EngineException) {
            Result.failure(failure)
        }
    }

    private companion object {
        const val NOT_LOADED = "no model is loaded; call initialize() first"
        const val BYTES_PER_MIB = 1L shl 20
        const val TRIM_MEMORY_RUNNING_LOW = 10
        const val TRIM_MEMORY_UI_HIDDEN = 20

        fun typed(failure: Throwable): EngineException = failure as? EngineException
            ?: BackendException("unexpected ${failure.javaClass.name}: ${failure.message}", failure)
    }
}
