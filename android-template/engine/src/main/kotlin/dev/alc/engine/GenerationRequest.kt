package dev.alc.engine

/**
 * A request for one answer.
 *
 * @property conversation continues the conversation of this name, or starts it; its cache is
 *   kept for the next request, its tokens until [ALCEngine.forget]. Null answers once and keeps
 *   nothing.
 * @property maxTokens the most tokens of the answer.
 * @property stop texts at which the answer ends. The answer's text ends before the first of them,
 *   wherever tokens begin and end; the text of a stop is never given out. The first is the one
 *   that is complete first. They are looked for in the answer only, not across its beginning.
 * @property responseFormat what the answer must be.
 * @property contextPolicy what happens when the conversation no longer fits the context.
 * @throws InvalidRequestException if [maxTokens] is not positive, the name or a stop is empty, a
 *   stop holds half a character, or there are more than 16 stops.
 */
public data class GenerationRequest(
    public val prompt: Prompt,
    public val conversation: String? = null,
    public val maxTokens: Int = 256,
    public val sampling: SamplingOptions = SamplingOptions(),
    public val streaming: StreamingPolicy = StreamingPolicy.Slow(),
    public val stop: List<String> = emptyList(),
    public val responseFormat: ResponseFormat = ResponseFormat.TEXT,
    public val contextPolicy: ContextPolicy = ContextPolicy.REFUSE,
) {
    init {
        if (maxTokens < 1) throw InvalidRequestException("maxTokens must be positive, not $maxTokens")
        if (conversation != null && conversation.isEmpty()) {
            throw InvalidRequestException("a conversation's name must not be empty")
        }
        if (stop.size > MAX_STOPS) throw InvalidRequestException("${stop.size} stops; at most $MAX_STOPS are looked for")
        for (text in stop) {
            if (text.isEmpty()) throw InvalidRequestException("a stop must not be empty")
            if (!Charsets.UTF_8.newEncoder().canEncode(text)) {
                throw InvalidRequestException("a stop holds half a character, an unpaired surrogate")
            }
        }
    }

    private companion object {
        const val MAX_STOPS = 16
    }
}

/** What an answer must be. */
public enum class ResponseFormat {
    /** Whatever the model says. */
    TEXT,

    /**
     * One JSON object (RFC 8259), held to by masking tokens; cut short only where the number of
     * tokens, the context or a stop ends it.
     */
    JSON,
}

/** What happens when a prompt and what came before it leave no room in the context. */
public enum class ContextPolicy {
    /** The request fails with a [ContextFullException]; the conversation stays as it was. */
    REFUSE,

    /**
     * The oldest turns are dropped until prompt and `maxTokens` fit; what is left is computed
     * again. System messages and the newest turn stay; if they leave no room, the request fails
     * with a [ContextFullException]. A turn begins with a `user` message. Only for conversations
     * of messages: text has no turns.
     */
    DROP_OLDEST_TURNS,
}

/** What an answer follows. */
public sealed interface Prompt {
    /** New messages at the end of the conversation, rendered by the model's chat template. */
    public data class Turn(public val messages: List<ChatMessage>) : Prompt

    /**
     * The whole conversation, earlier answers included, rendered by the model's chat template.
     * Where it begins as the named conversation did, the cache is used.
     */
    public data class Chat(public val messages: List<ChatMessage>) : Prompt

    /** Text at the end of the conversation, as it stands, without a template. */
    public data class Text(public val text: String) : Prompt

    /** Tokens at the end of the conversation. */
    public class Tokens(public val ids: IntArray) : Prompt
}

/** What happens when the collector of a request is slower than the model. */
public sealed interface StreamingPolicy {
    /** The model waits as soon as [capacity] events are waiting. Each token is one event. */
    public data class Slow(public val capacity: Int = 64) : StreamingPolicy {
        init {
            if (capacity < 1) throw InvalidRequestException("capacity must be positive, not $capacity")
        }
    }

    /**
     * Waiting tokens join into one event; the model waits as soon as [maxTokens] are waiting.
     *
     * @property intervalMillis the least time between two events with text, for a screen that is
     *   drawn so often; 0 gives each as soon as it is asked for. The first comes at once.
     */
    public data class Coalesce(
        public val intervalMillis: Long = 0,
        public val maxTokens: Int = 4096,
    ) : StreamingPolicy {
        init {
            if (intervalMillis < 0) throw InvalidRequestException("intervalMillis is negative")
            if (maxTokens < 1) throw InvalidRequestException("maxTokens must be positive")
        }
    }
}
