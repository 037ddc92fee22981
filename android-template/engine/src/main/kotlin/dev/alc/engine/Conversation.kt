package dev.alc.engine

/**
 * What the engine remembers of one conversation: its tokens, what they say, and, unless it was
 * evicted, the session that has computed the first of them. Confined to the decode thread.
 *
 * @property name null for a request that keeps nothing.
 */
internal class Conversation(val name: String?) {
    /** Every token so far; the session may lack the newest. */
    var tokens: IntArray = IntArray(0)
        private set
    var session: ModelSession? = null

    private var messages: List<ChatMessage> = emptyList()
    private var text = ""
    private var hasRawText = false

    /** What the conversation would be with [prompt] at its end; changes nothing. */
    fun plan(prompt: Prompt, model: LoadedModel): Plan = when (prompt) {
        is Prompt.Turn -> {
            if (hasRawText) {
                throw InvalidRequestException(
                    "the conversation holds text without a template; continue it with text, " +
                        "or start another one",
                )
            }
            chat(messages + prompt.messages, prompt.messages, model)
        }
        is Prompt.Chat -> chat(prompt.messages, prompt.messages, model)
        is Prompt.Text -> {
            val start = if (tokens.isEmpty()) model.tokenizer.startTokens else IntArray(0)
            raw(start + model.tokenizer.encode(prompt.text))
        }
        is Prompt.Tokens -> {
            val unknown = prompt.ids.firstOrNull { it !in 0 until model.info.vocabSize }
            if (unknown != null) throw InvalidRequestException("$unknown is not a token")
            raw(prompt.ids)
        }
    }

    private fun raw(added: IntArray): Plan {
        if (added.isEmpty()) throw InvalidRequestException("the prompt has no tokens")
        return Plan(tokens + added, messages, text, raw = true)
    }

    private fun chat(all: List<ChatMessage>, given: List<ChatMessage>, model: LoadedModel): Plan {
        val template = model.chatTemplate
            ?: throw InvalidRequestException("${model.info.name} has no chat template; give it text")
        if (given.isEmpty()) throw InvalidRequestException("the prompt has no messages")
        val rendered = template.render(all)
        // Tokens that a model chose need not be those of their text encoded again, so what the
        // conversation has is kept as it is wherever the template only adds to it.
        val continues = !hasRawText && text.isNotEmpty() && rendered.text.startsWith(text)
        val ids = if (continues) {
            tokens + model.tokenizer.encode(rendered.drop(text.length))
        } else {
            model.tokenizer.encode(rendered)
        }
        if (ids.isEmpty()) throw InvalidRequestException("the prompt has no tokens")
        return Plan(ids, all, rendered.text, raw = false)
    }

    /**
     * Trims the session to what [plan] shares with it and returns that number of tokens; at
     * least the last token of the plan is left to compute.
     */
    fun rewind(plan: Plan): Int {
        val session = session ?: return 0
        val most = minOf(session.length, plan.tokens.size - 1)
        var shared = 0
        while (shared < most && tokens[shared] == plan.tokens[shared]) shared++
        if (shared < session.length) session.trim(shared)
        return shared
    }

    /** Makes [plan] and the [answer] to it part of the conversation. */
    fun commit(plan: Plan, answer: IntArray, answerText: String) {
        tokens = plan.tokens + answer
        hasRawText = plan.raw
        messages = plan.messages + ChatMessage("assistant", answerText)
        text = plan.text + answerText
    }

    /** A conversation's future tokens, messages and text. */
    class Plan(
        val tokens: IntArray,
        val messages: List<ChatMessage>,
        val text: String,
        val raw: Boolean,
    )
}
