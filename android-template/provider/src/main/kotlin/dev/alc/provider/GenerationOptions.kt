package dev.alc.provider

/**
 * How an answer is made.
 *
 * @property maxTokens the most tokens of the answer.
 * @property temperature 0 always takes the likeliest token; the fields below then do nothing.
 * @property topP keeps the likeliest tokens whose probabilities add up to this, 0 (not included) to 1.
 * @property topK keeps this many of the likeliest tokens; 0 keeps all.
 * @property minP drops tokens less likely than this part of the likeliest.
 * @property repetitionPenalty above 1 makes tokens that occurred before less likely.
 * @property seed equal seeds give equal answers to equal requests.
 */
public data class GenerationOptions(
    public val maxTokens: Int = 256,
    public val temperature: Float = 0.7f,
    public val topP: Float = 0.95f,
    public val topK: Int = 0,
    public val minP: Float = 0f,
    public val repetitionPenalty: Float = 1f,
    public val seed: Long = 0,
)
