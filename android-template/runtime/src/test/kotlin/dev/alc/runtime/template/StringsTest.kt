package dev.alc.runtime.template

import dev.alc.engine.ChatTemplateException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

/** The expected values are what Python's `str` answers. */
class StringsTest {
    private fun text(value: String) = Text.plain(value)

    private fun split(value: String, separator: String?, most: Long = -1): List<String> =
        Strings.split(text(value), separator?.let(::text), most).map(Text::toString)

    private fun replace(value: String, old: String, new: String, count: Long = -1): String =
        Strings.replace(text(value), text(old), text(new), count).toString()

    @Test
    fun `strip takes Python's white space or the characters that it is given`() {
        val spaced = " \u001c\u0085\u3000a b\n\t\u2028"
        assertEquals("a b", Strings.strip(text(spaced), null).toString())
        assertEquals("\u200ba", Strings.strip(text("\u200ba "), null).toString())
        assertEquals("bcab", Strings.strip(text("abcab"), text("ac"), right = false).toString())
        assertEquals("abc", Strings.strip(text("abcab"), text("ab"), left = false).toString())
        assertEquals("", Strings.strip(text("aaa"), text("a")).toString())
    }

    @Test
    fun `split at a separator keeps empty parts`() {
        assertEquals(listOf("", "b", "", ""), split("abaa", "a"))
        assertEquals(listOf("", "baa"), split("abaa", "a", 1))
        assertEquals(listOf(""), split("", "a"))
        assertThrows(ChatTemplateException::class.java) { split("a", "") }
    }

    @Test
    fun `split at white space has no empty parts`() {
        assertEquals(listOf("a", "b"), split(" a \n b ", null))
        assertEquals(emptyList<String>(), split("  ", null))
        assertEquals(listOf("a", "b  c "), split(" a  b  c ", null, 1))
        assertEquals(listOf("a b "), split(" a b ", null, 0))
    }

    @Test
    fun `replace goes on after what it replaced`() {
        assertEquals("ba", replace("aaa", "aa", "b"))
        assertEquals("bba", replace("aaa", "a", "b", 2))
        assertEquals("aaa", replace("aaa", "a", "b", 0))
        assertEquals("-a-b-", replace("ab", "", "-"))
        assertEquals("-a-b", replace("ab", "", "-", 2))
        assertEquals("-", replace("", "", "-"))
    }

    @Test
    fun `case follows all of Unicode's rules`() {
        assertEquals("STRASSE", Strings.upper(text("straße")).toString())
        assertEquals("ὀδυσσεύς", Strings.lower(text("ὈΔΥΣΣΕΎΣ")).toString())
        assertEquals("i\u0307", Strings.lower(text("İ")).toString())
    }

    @Test
    fun `a letter that becomes two keeps its mark on both`() {
        val both = Strings.upper(Text.plain("ß") + Text.markup("ß"))
        assertEquals(listOf(2..3), both.marked().markup)
    }
}
