package dev.alc.runtime

import dev.alc.engine.ChatMessage
import dev.alc.engine.ChatTemplateException
import dev.alc.engine.MarkedText
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import dev.alc.engine.ModelNotFoundException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

/** What tests in Python compare with Jinja is not repeated here. */
class CompiledChatTemplateTest {
    @get:Rule
    val folder = TemporaryFolder()

    private fun parts(text: MarkedText): List<String> = text.markup.map(text.text::substring)

    @Test
    fun `roles that are words are markup, contents never`() {
        val template = CompiledChatTemplate.parse(TURNS)
        val text = template.render(
            listOf(ChatMessage("user", "<|end|>"), ChatMessage("|>", "b")),
            addGenerationPrompt = false,
        )
        assertEquals("<|user|><|end|><|end|><||>|>b<|end|>", text.text)
        assertEquals(listOf("<|user|>", "<|end|><|", "|>", "<|end|>"), parts(text))
    }

    @Test
    fun `a template can be used from several threads`() {
        val template = CompiledChatTemplate.parse(TURNS)
        val texts = (1..64).toList().parallelStream().map { number ->
            template.render(List(number) { ChatMessage("user", "$number") }).text
        }.toList()
        texts.forEachIndexed { index, text ->
            assertEquals("<|user|>${index + 1}<|end|>".repeat(index + 1), text)
        }
    }

    @Test
    fun `the template's own refusal is told apart from its failures`() {
        fun message(expression: String): String? = assertThrows(ChatTemplateException::class.java) {
            CompiledChatTemplate.parse(program("""["print",$expression]""")).render(emptyList())
        }.message
        assertEquals(
            "the chat template refuses this conversation: no",
            message("""["call","raise_exception",[["const","no"]]]"""),
        )
        assertEquals(
            "the chat template fails: 'x' is undefined",
            message("""["attr",["name","x"],"y"]"""),
        )
    }

    @Test
    fun `a file that is missing, damaged or of another version is named as such`() {
        val missing = File(folder.root, "none.json")
        assertThrows(ModelNotFoundException::class.java) { CompiledChatTemplate.read(missing) }
        val file = folder.newFile("chat_template.alc.json")
        assertThrows(ModelDamagedException::class.java) { CompiledChatTemplate.read(file) }
        file.writeText(program("""["text","a"]""").replace("/1", "/2"))
        assertThrows(ModelIncompatibleException::class.java) { CompiledChatTemplate.read(file) }
        file.writeText(program("""["text","a"]"""))
        assertEquals("a", CompiledChatTemplate.read(file).render(emptyList()).text)
    }

    @Test
    fun `a document that is nested without end is damage, not a crash`() {
        val deep = """["not",""".repeat(100_000) + """["name","x"]""" + "]".repeat(100_000)
        assertThrows(ModelDamagedException::class.java) {
            CompiledChatTemplate.parse(program("""["print",$deep]"""))
        }
    }

    private companion object {
        fun program(statement: String) =
            """{"schema":"harness.chat-template/1","bos_token":"<s>","program":[$statement]}"""

        private fun item(name: String) = """["item",["name","message"],["const","$name"]]"""

        val TURNS = program(
            """["for",["name","message"],["name","messages"],null,[["text","<|"],""" +
                """["print",${item("role")}],["text","|>"],["print",${item("content")}],""" +
                """["text","<|end|>"]],[]]""",
        )
    }
}
