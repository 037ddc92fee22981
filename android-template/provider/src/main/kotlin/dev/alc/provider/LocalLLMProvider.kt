package dev.alc.provider

import dev.alc.engine.ALCEngine
import dev.alc.engine.CacheBudgetException
import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineConfig
import dev.alc.engine.EngineException
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.InferenceStrategy
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import dev.alc.engine.LoadOptions
import dev.alc.engine.ModelInfo
import dev.alc.engine.Prompt
import dev.alc.engine.SamplingOptions
import dev.alc.runtime.MLCInferenceStrategy
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import java.io.File

/**
 * A language model on this device, for apps: private, streaming, safe to use from any thread.
 *
 * It loads one model at a time. It does not download models, does not talk to a network, and keeps
 * nothing after [cleanup].
 *
 * @param strategy what runs the model.
 */
public class LocalLLMProvider(private val strategy: InferenceStrategy) {
    private val lifecycle = Mutex()

    @Volatile
    private var loaded: Loaded? = null

    private class Loaded(val engine: ALCEngine, val info: ModelInfo)

    /**
     * A provider that runs MLC's packages with the runtime that the app carries.
     *
     * @param codeCache a folder of the app in which libraries may be executed, on Android
     *   `Context.getCodeCacheDir()`.
     */
    public constructor(codeCache: File) : this(MLCInferenceStrategy(codeCache))

    /**
     * Loads a model. A failure is an [EngineException]; the provider can then be initialized
     * again. A model that does not fit [LLMConfig.maxMemoryMB] is a [CacheBudgetException].
     */
    public suspend fun initialize(config: LLMConfig): Result<ModelInfo> = lifecycle.withLock {
        if (loaded != null) {
            return Result.failure(LifecycleException("a model is loaded already; call cleanup() first"))
        }
        val budget = config.maxMemoryMB.toLong() * BYTES_PER_MIB
        try {
            if (budget < 1) throw InvalidRequestException("maxMemoryMB must be positive")
            val engine = ALCEngine(strategy, EngineConfig(cacheBudgetBytes = budget))
            try {
                val info = engine.load(config.modelPath, options(config))
                checkFits(info, config, budget)
                loaded = Loaded(engine, info)
                Result.success(info)
            } finally {
                if (loaded == null) engine.close()
            }
        } catch (failure: EngineException) {
            Result.failure(failure)
        }
    }

    private fun options(config: LLMConfig): LoadOptions = try {
        LoadOptions(threads = config.threads, contextTokens = config.contextTokens)
    } catch (problem: IllegalArgumentException) {
        throw InvalidRequestException(problem.message ?: "wrong options", problem)
    }

    private fun checkFits(info: ModelInfo, config: LLMConfig, budget: Long) {
        val cache = info.kv.bytesPerToken * (config.contextTokens ?: info.contextWindow)
        if (info.weightsBytes + cache > budget) {
            throw CacheBudgetException(
                "${info.name} needs ${mib(info.weightsBytes)} MiB for weights and ${mib(cache)} MiB " +
                    "for its cache; maxMemoryMB is ${config.maxMemoryMB} (a lower contextTokens needs less)",
            )
        }
    }

    /** The answer to one [prompt], on its own; a cold flow that asks each time it is collected. */
    public fun generateResponse(
        prompt: String,
        options: GenerationOptions = GenerationOptions(),
    ): Flow<LLMResponse> = chat(listOf(ChatMessage("user", prompt)), options)

    /**
     * The next answer of a conversation, given all of its [messages]. The key/value cache of the
     * conversation so far is used as far as the messages begin as the last call's did.
     */
    public fun chat(
        messages: List<ChatMessage>,
        options: GenerationOptions = GenerationOptions(),
    ): Flow<LLMResponse> = flow {
        val engine = loaded?.engine
        if (engine == null) {
            emit(LLMResponse.Error(LifecycleException("no model is loaded; call initialize() first")))
            return@flow
        }
        val request = try {
            request(messages, options)
        } catch (refused: InvalidRequestException) {
            emit(LLMResponse.Error(refused))
            return@flow
        }
        val answer = AnswerTimes()
        engine.generate(request).collect { event -> answer.response(event)?.let { emit(it) } }
    }

    private fun request(messages: List<ChatMessage>, options: GenerationOptions) = GenerationRequest(
        prompt = Prompt.Chat(messages),
        conversation = CONVERSATION,
        maxTokens = options.maxTokens,
        sampling = SamplingOptions(
            temperature = options.temperature,
            topP = options.topP,
            topK = options.topK,
            minP = options.minP,
            repetitionPenalty = options.repetitionPenalty,
            seed = options.seed,
        ),
    )

    /** Ends every answer that is being made within one token; what came so far stays. */
    public fun stop() {
        loaded?.engine?.stop()
    }

    /** What is loaded (model, quantization, backend, ...); null before [initialize]. */
    public fun getInfo(): ModelInfo? = loaded?.info

    /** Ends every answer and gives back model and memory; [initialize] may follow. */
    public suspend fun cleanup() {
        lifecycle.withLock {
            val engine = loaded?.engine
            loaded = null
            engine?.close()
        }
    }

    /** Turns the engine's events into an app's, and keeps the times that it asks for. */
    private class AnswerTimes {
        private val text = StringBuilder()
        private var requestedNanos = 0L
        private var firstNanos = 0L
        private var lastNanos = 0L
        private var tokens = 0

        fun response(event: GenerationEvent): LLMResponse? = when (event) {
            is GenerationEvent.Started -> {
                requestedNanos = event.requestedNanos
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

        private fun complete(event: GenerationEvent.Finished) = LLMResponse.Complete(
            text = text.toString(),
            reason = event.reason,
            usage = event.usage,
            timeToFirstTokenMs = if (tokens > 0) (firstNanos - requestedNanos) / NANOS_PER_MS else null,
            tokensPerSecond = if (tokens > 1) (tokens - 1) * NANOS_PER_S / (lastNanos - firstNanos) else null,
        )
    }

    private companion object {
        const val CONVERSATION = "chat"
        const val BYTES_PER_MIB = 1L shl 20
        const val NANOS_PER_MS = 1e6
        const val NANOS_PER_S = 1e9

        fun mib(bytes: Long): Long = (bytes + BYTES_PER_MIB - 1) / BYTES_PER_MIB
    }
}
