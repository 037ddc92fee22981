package dev.alc.engine

/**
 * Turns text into a model's tokens and back. Immutable: safe to use from any thread.
 */
public interface Tokenizer {
    /** Number of token ids; ids are 0 until this. */
    public val vocabSize: Int

    /** The ids that a text on its own begins with, as the model was trained; often none. */
    public val startTokens: IntArray

    /**
     * The ids of [text]. Special tokens are recognized inside its markup ranges only; the rest
     * is ordinary text, whatever it looks like. Adds neither [startTokens] nor an end token.
     * An unpaired surrogate counts as U+FFFD.
     */
    public fun encode(text: MarkedText): IntArray

    /** The ids of ordinary [text]. */
    public fun encode(text: String): IntArray = encode(MarkedText.plain(text))

    /**
     * The bytes that token [id] adds to a text when it follows token [previous] ([NO_TOKEN] at
     * the start). They need not be whole characters.
     *
     * @throws IllegalArgumentException if [id] is not a token.
     */
    public fun tokenBytes(id: Int, previous: Int = NO_TOKEN): ByteArray

    /** Whether [id] is a control token, which has no place in an answer's text. */
    public fun isSpecial(id: Int): Boolean

    /** The id of the token whose bytes are those of [token] in UTF-8, or null. */
    public fun idOf(token: String): Int?

    /**
     * The text of [ids]. Bytes that are not UTF-8 become U+FFFD.
     *
     * @param skipSpecial leaves control tokens out.
     */
    public fun decode(ids: IntArray, skipSpecial: Boolean = false): String

    /** Constants of [Tokenizer]. */
    public companion object {
        /** The [tokenBytes] argument `previous` at the start of a text. */
        public const val NO_TOKEN: Int = -1
    }
}

/**
 * A text of which some ranges are markup: written by a template, not by a user. Only there may
 * special tokens be recognized, so a user's `<|im_end|>` stays text.
 *
 * @property text the whole text.
 * @property markup ranges of [text] in rising order, which neither overlap nor touch.
 * @property continues whether [text] goes on with one whose beginning has been encoded already, so
 * that it gets no space that a model's texts begin with.
 */
public class MarkedText(
    public val text: String,
    public val markup: List<IntRange>,
    public val continues: Boolean = false,
) {
    init {
        var end = -1
        for (range in markup) {
            require(range.first > end && !range.isEmpty() && range.last < text.length) {
                "markup ranges must rise and lie in the text"
            }
            end = range.last + 1
        }
    }

    /** The text from [start] on, with its markup. */
    public fun drop(start: Int): MarkedText = MarkedText(
        text.substring(start),
        markup.filter { it.last >= start }.map { maxOf(it.first - start, 0)..it.last - start },
        continues = continues || start > 0,
    )

    /** Makers of texts that are of one kind only. */
    public companion object {
        /** All of [text] is ordinary text. */
        public fun plain(text: String): MarkedText = MarkedText(text, emptyList())

        /** All of [text] is markup. */
        public fun markup(text: String): MarkedText =
            MarkedText(text, if (text.isEmpty()) emptyList() else listOf(text.indices))
    }
}

/** One turn of a conversation. [role] is what the model's template knows: `system`, `user`, ... */
public data class ChatMessage(public val role: String, public val content: String)

/** Renders conversations as the model was trained to read them. Immutable. */
public interface ChatTemplate {
    /**
     * The text of [messages]; what comes from their contents is not markup.
     *
     * @param addGenerationPrompt whether to end with the opening of the assistant's answer.
     * @throws ChatTemplateException if the template refuses the conversation.
     */
    public fun render(messages: List<ChatMessage>, addGenerationPrompt: Boolean = true): MarkedText
}
