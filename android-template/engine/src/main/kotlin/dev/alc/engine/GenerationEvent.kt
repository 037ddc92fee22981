package dev.alc.engine

/**
 * What happens to one request, in this order: [Started], [Prefilled], [Tokens] any number of
 * times, then [Finished]; or [Failed] at any point. The last of them ends the flow.
 *
 * Times are readings of the engine's clock, on a device `System.nanoTime()`: nanoseconds of the
 * monotonic clock.
 */
public sealed interface GenerationEvent {
    /**
     * The request's turn has come.
     *
     * @property promptTokenIds every token that the answer follows, cached ones included.
     * @property cachedTokens how many of them, from the start, the cache has already.
     * @property droppedMessages how many of the conversation's oldest messages had to go, where
     *   [ContextPolicy.DROP_OLDEST_TURNS] allows that.
     * @property requestedNanos when the flow was first collected.
     * @property startNanos when its turn came; the rest of the time it waited for others.
     */
    public class Started(
        public val promptTokenIds: IntArray,
        public val cachedTokens: Int,
        public val droppedMessages: Int,
        public val requestedNanos: Long,
        public val startNanos: Long,
    ) : GenerationEvent

    /** The prompt is in the cache; [tokens] were computed between the two times. */
    public class Prefilled(
        public val tokens: Int,
        public val startNanos: Long,
        public val endNanos: Long,
    ) : GenerationEvent

    /**
     * The next tokens and the text that they complete, usually one token.
     *
     * The text may lag behind the tokens while a character is incomplete, or while it may be the
     * beginning of a stop; what is left of it at the end comes with no tokens. Tokens of a stop are
     * among them, their text is not; the token with which the model ends an answer is not.
     *
     * @property first index of the first of these tokens in the answer.
     * @property nanos when each token was available.
     */
    public class Tokens(
        public val first: Int,
        public val ids: IntArray,
        public val nanos: LongArray,
        public val text: String,
    ) : GenerationEvent

    /** The answer is complete. */
    public data class Finished(
        public val reason: FinishReason,
        public val usage: Usage,
        public val endNanos: Long,
    ) : GenerationEvent

    /** The request failed; text that came before stays valid. The engine is still usable. */
    public data class Failed(public val error: EngineException) : GenerationEvent
}

/** Why an answer ended. */
public enum class FinishReason {
    /** The model ended it, one of [GenerationRequest.stop] came, or the JSON object is complete. */
    STOP,

    /** It reached its number of tokens, or the context window is full. */
    LENGTH,

    /** [ALCEngine.stop] ended it. */
    CANCELLED,
}

/**
 * What a request used, in tokens. [cachedTokens] of the [promptTokens] were not computed again; the
 * [completionTokens] count those of a stop too.
 */
public data class Usage(
    public val promptTokens: Int,
    public val cachedTokens: Int,
    public val completionTokens: Int,
)
