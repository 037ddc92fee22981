package dev.alc.engine

/**
 * What the engine remembers of one conversation: its messages, its tokens, what they say, and,
 * unless it was evicted, the cache of the first of them. Confined to the decode thread.
 *
 * @property name null for a request that keeps nothing.
 */
internal class Conversation(val name: String?) {
    /** Every token so far; the cache may lack the newest. */
    var tokens: IntArray = IntArray(0)
        private set
    var cache: Cache? = null

    private var messages: List<ChatMessage> = emptyList()
    private var text = ""
    private var hasRawText = false
    private val turns = ArrayList<Turn>()

    /** Where the conversation stood after a request and its answer. */
    private class Turn(val tokens: Int, val messages: List<ChatMessage>, val textLength: Int, val hasRawText: Boolean)

    /** What the conversation would be with [prompt] at its end; changes nothing. */
    fun plan(prompt: Prompt, model: LoadedModel): Plan = when (prompt) {
        is Prompt.Turn -> {
            if (hasRawText) {
                throw InvalidRequestException(
                    "the conversation holds text without a template; continue it with text, " +
                        "or start another one",
                )
            }
            if (prompt.messages.isEmpty()) throw InvalidRequestException("the prompt has no messages")
            chat(messages + prompt.messages, model)
        }
        is Prompt.Chat -> chat(prompt.messages, model)
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
        return Plan(tokens + added, messages, text, raw = true, continues = true)
    }

    private fun chat(all: List<ChatMessage>, model: LoadedModel): Plan {
        val template = model.chatTemplate
            ?: throw InvalidRequestException("${model.info.name} has no chat template; give it text")
        if (all.isEmpty()) throw InvalidRequestException("the prompt has no messages")
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
        return Plan(ids, all, rendered.text, raw = false, continues)
    }

    /**
     * [plan] without as few of its oldest turns as bring it down to [most] tokens. System messages
     * and the newest turn stay, even if they are more. Text has no turns to drop.
     */
    fun shorten(plan: Plan, most: Int, model: LoadedModel): Plan {
        val turns = if (plan.raw) emptyList() else laterTurns(plan.messages)
        var shortest = plan
        var low = 0
        var high = turns.lastIndex
        while (low <= high) {
            val middle = (low + high) ushr 1
            val kept = plan.messages.filterIndexed { index, it -> index >= turns[middle] || it.role == SYSTEM }
            val shorter = chat(kept, model)
            if (shorter.tokens.size <= most || middle == turns.lastIndex) {
                shortest = shorter
                high = middle - 1
            } else {
                low = middle + 1
            }
        }
        return shortest
    }

    /** Where the turns of [messages] begin, but for the first: at a user's messages. */
    private fun laterTurns(messages: List<ChatMessage>): List<Int> {
        val first = messages.indexOfFirst { it.role != SYSTEM }
        return messages.indices.filter { it > first && messages[it].role == USER }
    }

    /** Makes [plan] and the [answer] to it part of the conversation. */
    fun commit(plan: Plan, answer: Answer) {
        if (!plan.continues) turns.clear()
        tokens = plan.tokens + answer.tokensOfText()
        hasRawText = plan.raw
        if (!plan.raw) {
            messages = plan.messages + ChatMessage(ASSISTANT, answer.text)
            text = plan.text + answer.text
        }
        turns += Turn(tokens.size, messages, text.length, hasRawText)
    }

    /** Keeps the first [count] tokens; what is then not a whole turn counts as raw text. */
    fun trim(count: Int) {
        if (count !in 0..tokens.size) {
            throw InvalidRequestException("cannot keep $count tokens: $name has ${tokens.size}")
        }
        while (turns.isNotEmpty() && turns.last().tokens > count) turns.removeAt(turns.lastIndex)
        val last = turns.lastOrNull()
        hasRawText = last?.hasRawText == true || count > (last?.tokens ?: 0)
        messages = last?.messages ?: emptyList()
        text = text.take(last?.textLength ?: 0)
        tokens = tokens.copyOf(count)
    }

    /** Keeps the first [count] turns. */
    fun trimTurns(count: Int) {
        if (count !in 0..turns.size) {
            throw InvalidRequestException("cannot keep $count turns: $name has ${turns.size}")
        }
        trim(if (count == 0) 0 else turns[count - 1].tokens)
    }

    /** The same conversation under another [name], without a cache. */
    fun copy(name: String): Conversation = Conversation(name).also {
        it.tokens = tokens
        it.messages = messages
        it.text = text
        it.hasRawText = hasRawText
        it.turns += turns
    }

    /**
     * A conversation's future tokens, messages and text.
     *
     * @property continues whether it begins with the conversation's tokens as they are now.
     */
    class Plan(
        val tokens: IntArray,
        val messages: List<ChatMessage>,
        val text: String,
        val raw: Boolean,
        val continues: Boolean,
    )

    private companion object {
        const val SYSTEM = "system"
        const val USER = "user"
        const val ASSISTANT = "assistant"
    }
}
