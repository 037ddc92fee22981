package dev.alc.engine

/**
 * How the next token is chosen from the logits; [TopPSampler] says in which order.
 *
 * @property temperature 0 takes the best token (greedy); above, logits are divided by it.
 * @property topP keeps the likeliest tokens whose probabilities reach this sum, in (0, 1].
 * @property topK keeps this many of the likeliest tokens; 0 keeps all.
 * @property minP keeps tokens at least this fraction as likely as the likeliest, in [0, 1).
 * @property typicalP keeps the tokens whose information is nearest to the distribution's entropy
 *   until their probabilities reach this sum, in (0, 1] (Meister et al., "Locally Typical
 *   Sampling", 2023).
 * @property repetitionPenalty divides positive and multiplies negative logits of tokens that
 *   the sequence has already (prompt included); 1 changes nothing (Keskar et al., "CTRL", 2019).
 * @property frequencyPenalty is taken from a token's logit once for each time that the answer
 *   has it already, in [-100, 100].
 * @property presencePenalty is taken from the logits of tokens that the answer has already,
 *   in [-100, 100].
 * @property logitBias is added to the logits of these tokens; minus infinity forbids one.
 * @property seed where the random numbers start. Equal seeds give equal answers.
 * @throws InvalidRequestException if a value is out of its range or not a number.
 */
public data class SamplingOptions(
    public val temperature: Float = 0f,
    public val topP: Float = 1f,
    public val topK: Int = 0,
    public val minP: Float = 0f,
    public val typicalP: Float = 1f,
    public val repetitionPenalty: Float = 1f,
    public val frequencyPenalty: Float = 0f,
    public val presencePenalty: Float = 0f,
    public val logitBias: Map<Int, Float> = emptyMap(),
    public val seed: Long = 0,
) {
    init {
        // Negated comparisons, so that NaN is refused too.
        check(temperature >= 0f && temperature <= MAX_TEMPERATURE) {
            "temperature must be 0 to $MAX_TEMPERATURE, not $temperature"
        }
        check(topP > 0f && topP <= 1f) { "topP must be above 0 and at most 1, not $topP" }
        check(topK >= 0) { "topK must not be negative: $topK" }
        check(minP >= 0f && minP < 1f) { "minP must be 0 to below 1, not $minP" }
        check(typicalP > 0f && typicalP <= 1f) { "typicalP must be above 0 and at most 1, not $typicalP" }
        check(repetitionPenalty > 0f && repetitionPenalty <= MAX_PENALTY) {
            "repetitionPenalty must be above 0 and at most $MAX_PENALTY, not $repetitionPenalty"
        }
        check(frequencyPenalty >= -MAX_PENALTY && frequencyPenalty <= MAX_PENALTY) {
            "frequencyPenalty must be -$MAX_PENALTY to $MAX_PENALTY, not $frequencyPenalty"
        }
        check(presencePenalty >= -MAX_PENALTY && presencePenalty <= MAX_PENALTY) {
            "presencePenalty must be -$MAX_PENALTY to $MAX_PENALTY, not $presencePenalty"
        }
        for ((token, bias) in logitBias) {
            check(token >= 0) { "logitBias names $token, which is no token" }
            check(bias < Float.POSITIVE_INFINITY) { "logitBias of token $token must be a number, not $bias" }
        }
    }

    private inline fun check(valid: Boolean, message: () -> String) {
        if (!valid) throw InvalidRequestException(message())
    }

    private companion object {
        const val MAX_TEMPERATURE = 100f
        const val MAX_PENALTY = 100f
    }
}
