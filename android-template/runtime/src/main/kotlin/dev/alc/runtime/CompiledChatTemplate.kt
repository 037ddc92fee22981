package dev.alc.runtime

import dev.alc.engine.ChatMessage
import dev.alc.engine.ChatTemplate
import dev.alc.engine.MarkedText
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelNotFoundException
import dev.alc.runtime.template.Bool
import dev.alc.runtime.template.Dict
import dev.alc.runtime.template.None
import dev.alc.runtime.template.Rendering
import dev.alc.runtime.template.Scope
import dev.alc.runtime.template.TemplateProgram
import dev.alc.runtime.template.TemplateReader
import dev.alc.runtime.template.Text
import dev.alc.runtime.template.list
import java.io.File
import java.io.IOException

/**
 * A checkpoint's own Jinja chat template, compiled by the harness to `chat_template.alc.json`.
 *
 * Renders what Jinja renders, as Hugging Face sets it up, for messages with a role and a text.
 * Markup is what the template itself writes, and roles that are plain words (ASCII letters,
 * digits, `_`, `-`), because some templates make special tokens of them. Everything that comes
 * from contents is not markup, however the template cuts, joins or changes it.
 *
 * It has no tools, no documents and no clock; a template that cannot do without them is refused
 * at compile time. A rendering that takes too many steps fails.
 */
public class CompiledChatTemplate private constructor(
    private val program: TemplateProgram,
) : ChatTemplate {
    override fun render(messages: List<ChatMessage>, addGenerationPrompt: Boolean): MarkedText {
        val rendering = Rendering()
        val scope = Scope(null, rendering)
        program.tokens.forEach { (name, text) -> scope[name] = text }
        scope["messages"] = list(messages.map(::message))
        scope["add_generation_prompt"] = Bool.of(addGenerationPrompt)
        scope["tools"] = None
        scope["documents"] = None
        program.body.run(scope.inner())
        return rendering.output.build().marked()
    }

    private fun message(message: ChatMessage): Dict {
        val word = WORD.matches(message.role)
        val role = if (word) Text.markup(message.role) else Text.plain(message.role)
        return Dict(mapOf(ROLE to role, CONTENT to Text.plain(message.content)))
    }

    /** Readers of the compiled form. */
    public companion object {
        private val WORD = Regex("[A-Za-z0-9_-]*")
        private val ROLE = Text.markup("role")
        private val CONTENT = Text.markup("content")

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
                val why = failure.message
                throw ModelDamagedException("${file.path} cannot be read: $why", failure)
            }
            return parse(text, file.name)
        }

        /** The template in the document [text]; [name] stands in messages. Throws as [read]. */
        public fun parse(
            text: String,
            name: String = "chat_template.alc.json",
        ): CompiledChatTemplate = CompiledChatTemplate(TemplateReader.read(text, name))
    }
}
