package dev.alc.runtime

import dev.alc.engine.ChatMessage
import dev.alc.engine.ChatTemplate
import dev.alc.engine.ChatTemplateException
import dev.alc.engine.MarkedText
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelNotFoundException
import dev.alc.runtime.template.Interpreter
import dev.alc.runtime.template.TemplateDocument
import dev.alc.runtime.template.TemplateReader
import dev.alc.runtime.template.Text
import java.io.File
import java.io.IOException

/**
 * A checkpoint's own Jinja chat template, compiled by the harness to `chat_template.alc.json`.
 *
 * Renders what Jinja renders, as Hugging Face sets it up, for messages with a role and a text.
 * What the template itself writes is markup, what the messages bring is not. It has no tools, no
 * documents and no clock; a template that cannot do without them is refused at compile time.
 */
public class CompiledChatTemplate private constructor(
    private val document: TemplateDocument,
) : ChatTemplate {
    override fun render(messages: List<ChatMessage>, addGenerationPrompt: Boolean): MarkedText {
        val names = mapOf(
            "messages" to messages.map {
                mapOf(
                    Text.plain("role") to Text.plain(it.role),
                    Text.plain("content") to Text.plain(it.content),
                )
            },
            "add_generation_prompt" to addGenerationPrompt,
            "tools" to null,
            "documents" to null,
        )
        val tokens = document.tokens.mapValues { Text.markup(it.value) }
        return try {
            Interpreter(tokens + names).render(document.program).marked()
        } catch (failure: StackOverflowError) {
            throw ChatTemplateException("the chat template is nested too deeply", failure)
        }
    }

    /** Readers of the compiled form. */
    public companion object {
        /**
         * The template in [file].
         *
         * @throws ModelNotFoundException if there is no such file.
         * @throws ModelDamagedException if it is not whole.
         * @throws dev.alc.engine.ModelIncompatibleException if it is of another version.
         */
        public fun read(file: File): CompiledChatTemplate {
            if (!file.isFile) throw ModelNotFoundException("${file.path} is missing")
            val text = try {
                file.readText()
            } catch (failure: IOException) {
                throw ModelDamagedException("${file.path} cannot be read: ${failure.message}", failure)
            }
            return parse(text, file.name)
        }

        /** The template in the document [text]; [name] stands in messages. Throws as [read]. */
        public fun parse(text: String, name: String = "chat_template.alc.json"): CompiledChatTemplate =
            CompiledChatTemplate(TemplateReader.read(text, name))
    }
}
