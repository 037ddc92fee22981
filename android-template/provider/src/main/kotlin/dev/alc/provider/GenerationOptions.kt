package dev.alc.provider

import dev.alc.engine.ContextPolicy
import dev.alc.engine.GenerationRequest
import dev.alc.engine.Prompt
import dev.alc.engine.ResponseFormat
import dev.alc.engine.SamplingOptions
import dev.alc.engine.StreamingPolicy

/**
 * How an answer is made. Nothing is checked here: a value out of its range, or not a number, makes
 * the request an [LLMResponse.Error] of the kind `invalid-request`.
 *
 * @property maxTokens the most tokens of the answer, at least 1.
 * @property temperature 0 always takes the likeliest token; above, the higher the more varied, to 100.
 * @property topP keeps the likeliest tokens whose probabilities add up to this, 0 (not included) to 1.
 * @property topK keeps this many of the likeliest tokens; 0 keeps all.
 * @property minP drops tokens less likely than this part of the likeliest, 0 to 1 (not included).
 * @property typicalP keeps the tokens that are about as surprising as the model expects, until
 *   their probabilities add up to this, 0 (not included) to 1.
 * @property repetitionPenalty above 1 makes tokens of the conversation less likely to come again.
 * @property frequencyPenalty above 0 makes tokens less likely each time that the answer has them.
 * @property presencePenalty above 0 makes tokens less likely once the answer has them.
 * @property logitBias is added to the logits of these token ids; minus infinity forbids one.
 * @property seed equal seeds give equal answers to equal requests.
 * @property stop texts at which the answer ends, at most 16; none of them is given out.
 * @property responseFormat [ResponseFormat.JSON] makes the answer one JSON object; it is cut short
 *   only where [maxTokens], [stop] or the context ends it.
 * @property contextPolicy what happens when the conversation no longer fits the context.
 * @property updateIntervalMs the least milliseconds between two pieces of text, for a screen; text
 *   that comes meanwhile joins the next piece, and a slow collector slows the model only once 4096
 *   tokens wait. With 0 each token's text is a piece, and the model waits for a slow collector.
 */
public data class GenerationOptions(
    public val maxTokens: Int = 256,
    public val temperature: Float = 0.7f,
    public val topP: Float = 0.95f,
    public val topK: Int = 0,
    public val minP: Float = 0f,
    public val typicalP: Float = 1f,
    public val repetitionPenalty: Float = 1f,
    public val frequencyPenalty: Float = 0f,
    public val presencePenalty: Float = 0f,
    public val logitBias: Map<Int, Float> = emptyMap(),
    public val seed: Long = 0,
    public val stop: List<String> = emptyList(),
    public val responseFormat: ResponseFormat = ResponseFormat.TEXT,
    public val contextPolicy: ContextPolicy = ContextPolicy.REFUSE,
    public val updateIntervalMs: Long = 0,
) {
    /**
     * The engine's request for an answer to [prompt] in [conversation].
     *
     * @throws dev.alc.engine.InvalidRequestException if a value is out of its range.
     */
    internal fun request(prompt: Prompt, conversation: String?) = GenerationRequest(
        prompt = prompt,
        conversation = conversation,
        maxTokens = maxTokens,
        sampling = SamplingOptions(
            temperature = temperature,
            topP = topP,
            topK = topK,
            minP = minP,
            typicalP = typicalP,
            repetitionPenalty = repetitionPenalty,
            frequencyPenalty = frequencyPenalty,
            presencePenalty = presencePenalty,
            logitBias = logitBias,
            seed = seed,
        ),
        streaming = if (updateIntervalMs == 0L) {
            StreamingPolicy.Slow()
        } else {
            StreamingPolicy.Coalesce(updateIntervalMs)
        },
        stop = stop,
        responseFormat = responseFormat,
        contextPolicy = contextPolicy,
    )
}
