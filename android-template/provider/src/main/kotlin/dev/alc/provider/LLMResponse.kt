package dev.alc.provider

import dev.alc.engine.EngineException
import dev.alc.engine.FinishReason
import dev.alc.engine.Usage

/** What a request brings: [Streaming] any number of times, then [Complete] or [Error], once. */
public sealed interface LLMResponse {
    /** The next piece of the answer; pieces are whole characters and join to the answer. */
    public data class Streaming(public val text: String) : LLMResponse

    /**
     * The answer is complete.
     *
     * @property text the whole answer.
     * @property reason why it ended; [FinishReason.CANCELLED] after [LocalLLMProvider.stop].
     * @property usage tokens of prompt and answer.
     * @property droppedMessages how many of the oldest messages the answer does not know, where
     *   [GenerationOptions.contextPolicy] allows that.
     * @property timeToFirstTokenMs from the request to the first token, in milliseconds; null if
     *   the answer has no tokens.
     * @property tokensPerSecond of the tokens after the first; null if there are fewer than two,
     *   or their times are equal.
     */
    public data class Complete(
        public val text: String,
        public val reason: FinishReason,
        public val usage: Usage,
        public val droppedMessages: Int,
        public val timeToFirstTokenMs: Double?,
        public val tokensPerSecond: Double?,
    ) : LLMResponse

    /** The request failed. Pieces that came before stay valid; the provider is still usable. */
    public data class Error(public val error: EngineException) : LLMResponse
}
