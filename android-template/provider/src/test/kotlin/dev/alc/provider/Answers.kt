package dev.alc.provider

import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineException
import kotlinx.coroutines.flow.last

/** The complete answer to [prompt] on its own; an error fails the test. */
internal suspend fun LocalLLMProvider.answer(prompt: String, options: GenerationOptions): LLMResponse.Complete =
    complete(generateResponse(prompt, options).last())

/** The complete next answer to [messages]; an error fails the test. */
internal suspend fun LocalLLMProvider.answer(
    messages: List<ChatMessage>,
    options: GenerationOptions,
    conversation: String = "chat",
): LLMResponse.Complete = complete(chat(messages, options, conversation).last())

/** The error that the answer to [prompt] ends with. */
internal suspend fun LocalLLMProvider.error(prompt: String, options: GenerationOptions): EngineException =
    when (val last = generateResponse(prompt, options).last()) {
        is LLMResponse.Error -> last.error
        else -> throw AssertionError("expected an error, got $last")
    }

private fun complete(last: LLMResponse): LLMResponse.Complete = when (last) {
    is LLMResponse.Complete -> last
    is LLMResponse.Error -> throw AssertionError("expected an answer, got an error", last.error)
    is LLMResponse.Streaming -> throw AssertionError("the answer has no end")
}
