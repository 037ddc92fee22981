package dev.alc.engine

import dev.alc.engine.GenerationEvent.Tokens
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

/** Stop strings, in answers that come one byte at a time. */
class StopsTest {
    private fun stopping(vararg stops: String, maxTokens: Int = 64) =
        turn("q", "c", maxTokens).copy(stop = stops.asList())

    @Test
    fun `an answer ends before its stop wherever tokens part it`() = runTest {
        val events = loaded(ScriptedModel("one two three")).generate(stopping("two")).toList()
        assertEquals("one ", events.text())
        assertEquals(FinishReason.STOP, events.finished().reason)
        // The tokens of the stop were computed and are told, their text is not.
        assertEquals(7, events.finished().usage.completionTokens)
        assertEquals(7, events.filterIsInstance<Tokens>().sumOf { it.ids.size })
    }

    @Test
    fun `what was only the beginning of a stop is given in the end`() = runTest {
        val events = loaded(ScriptedModel("one tw")).generate(stopping("two")).toList()
        assertEquals("one tw", events.text())
        assertEquals(FinishReason.STOP, events.finished().reason)
        val cut = loaded(ScriptedModel("one two")).generate(stopping("two", maxTokens = 6)).toList()
        assertEquals("one tw", cut.text())
        assertEquals(FinishReason.LENGTH, cut.finished().reason)
    }

    @Test
    fun `the first of several stops ends the answer`() = runTest {
        val events = loaded(ScriptedModel("a b c")).generate(stopping("c", "b")).toList()
        assertEquals("a ", events.text())
    }

    @Test
    fun `a stop of a character of several tokens is found`() = runTest {
        val events = loaded(ScriptedModel("well 😀 yes")).generate(stopping("😀")).toList()
        assertEquals("well ", events.text())
    }

    @Test
    fun `the next turn follows the text that was given, not the stop`() = runTest {
        val model = ScriptedModel("one two", "x")
        val engine = loaded(model)
        engine.generate(stopping("two")).toList()
        model.next = 1
        val started = engine.generate(turn("r", "c")).toList().started()
        assertEquals("<user>q</user>one <end><user>r</user>", written(started.promptTokenIds))
        assertEquals("<user>q</user>one ".length - "<user></user>".length + 2, started.cachedTokens)
    }

    @Test
    fun `stops that cannot be are refused`() {
        for (stops in listOf(listOf(""), List(17) { "s$it" }, listOf("\uD83D"))) {
            assertThrows(InvalidRequestException::class.java) { GenerationRequest(Prompt.Text("a"), stop = stops) }
        }
    }
}
