package dev.alc.engine

import dev.alc.engine.GenerationEvent.Failed
import dev.alc.engine.GenerationEvent.Finished
import dev.alc.engine.GenerationEvent.Started
import dev.alc.engine.GenerationEvent.Tokens
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestScope

/** An engine in virtual time. */
@OptIn(ExperimentalCoroutinesApi::class)
internal fun TestScope.engine(
    model: ScriptedModel,
    config: EngineConfig = EngineConfig(),
    strategy: InferenceStrategy = ScriptedStrategy(model),
): ALCEngine = ALCEngine(
    strategy,
    config,
    nanoTime = { testScheduler.currentTime * 1_000_000 },
    dispatcher = StandardTestDispatcher(testScheduler),
)

internal suspend fun TestScope.loaded(
    model: ScriptedModel,
    config: EngineConfig = EngineConfig(),
): ALCEngine = engine(model, config).also { it.load("model") }

/** What a user says in [conversation]. */
internal fun turn(
    text: String,
    conversation: String? = null,
    maxTokens: Int = 64,
    streaming: StreamingPolicy = StreamingPolicy.Slow(),
): GenerationRequest = GenerationRequest(
    Prompt.Turn(listOf(ChatMessage("user", text))),
    conversation,
    maxTokens,
    streaming = streaming,
)

internal fun List<GenerationEvent>.text(): String = filterIsInstance<Tokens>().joinToString("") { it.text }

internal fun List<GenerationEvent>.started(): Started = filterIsInstance<Started>().single()

internal fun List<GenerationEvent>.finished(): Finished = last() as Finished

internal suspend fun Flow<GenerationEvent>.failure(): EngineException = (toList().last() as Failed).error

/** Tokens as one reads them, such as `<user>a</user>b`. */
internal fun written(tokens: IntArray): String =
    tokens.joinToString("") { String(ByteTokenizer.tokenBytes(it, -1), Charsets.ISO_8859_1) }
