package dev.alc.runtime.template

import dev.alc.engine.ChatTemplateException
import dev.alc.engine.MarkedText
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class TextTest {
    private val mixed = Text.markup("<b>") + Text.plain("🙂é") + Text.markup("</b>")

    private fun parts(text: MarkedText): List<String> = text.markup.map(text.text::substring)

    @Test
    fun `characters are code points, ranges of the result are UTF-16`() {
        assertEquals(9, mixed.length)
        assertEquals(listOf(0..2, 6..9), mixed.marked().markup)
        assertEquals("<b>🙂é</b>", mixed.marked().text)
    }

    @Test
    fun `slices and picks keep what is markup`() {
        assertEquals(listOf(">"), parts(mixed.slice(2, 4).marked()))
        assertEquals(emptyList<String>(), parts(mixed.slice(3, 5).marked()))
        assertEquals(listOf(">", "<"), parts(mixed.pick(intArrayOf(2, 3, 0)).marked()))
    }

    @Test
    fun `neighbouring markup is one range`() {
        val text = (Text.markup("a") + Text.markup("b") + Text.EMPTY + Text.markup("c")).marked()
        assertEquals(listOf(0..2), text.markup)
    }

    @Test
    fun `equality is about the text alone`() {
        assertEquals(Text.markup("a"), Text.plain("a"))
        assertEquals(Text.markup("a").hashCode(), Text.plain("a").hashCode())
        assertNotEquals(Text.markup("a"), Text.plain("b"))
        assertTrue(Text.markup("\uFFFF").compareTo(Text.markup("🙂")) < 0)
    }

    @Test
    fun `a half of a surrogate pair survives`() {
        val half = Text.plain("a\uD83D")
        assertEquals(2, half.length)
        assertEquals("a\uD83D", half.marked().text)
    }

    @Test
    fun `a text has an end`() {
        val builder = TextBuilder()
        val part = Text.plain("x".repeat(1 shl 20))
        repeat(4) { builder.add(part) }
        val failure = assertThrows(ChatTemplateException::class.java) { builder.add("x") }
        assertEquals("chat-template", failure.kind)
    }
}
