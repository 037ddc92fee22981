package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.arbitrary.int
import io.kotest.property.arbitrary.list
import io.kotest.property.arbitrary.map
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test

class StopMatcherTest {
    @Test
    fun `what a stop may begin with waits and comes when it was none`() {
        val matcher = StopMatcher(listOf("abc"))
        assertEquals("x", matcher.add("xab"))
        assertEquals("ab", matcher.add("ab"))
        assertEquals("ab", matcher.rest())
        assertFalse(matcher.found)
    }

    @Test
    fun `a stop may come in any pieces and nothing follows it`() {
        val matcher = StopMatcher(listOf("abc"))
        assertEquals("x", listOf("xa", "b", "cde").joinToString("") { matcher.add(it) })
        assertTrue(matcher.found)
        assertEquals("", matcher.add("more"))
        assertEquals("", matcher.rest())
    }

    @Test
    fun `of two that end together the longer counts`() {
        val matcher = StopMatcher(listOf("b", "aab"))
        assertEquals("x", matcher.add("xaab"))
    }

    /** Few letters and short stops, so that beginnings of stops are everywhere. */
    @Test
    fun `any cut of any text is cut at the first stop, and waits no longer than it must`() = runBlocking<Unit> {
        val words = Arb.list(Arb.int(0..1), 1..4).map { bits -> bits.joinToString("") { if (it == 0) "a" else "b" } }
        val pieces = Arb.list(Arb.list(Arb.int(0..1), 0..5), 0..12)
            .map { list -> list.map { bits -> bits.joinToString("") { if (it == 0) "a" else "b" } } }
        checkAll(3000, Arb.list(words, 1..4), pieces) { stops, cut ->
            val matcher = StopMatcher(stops)
            val text = cut.joinToString("")
            val end = (1..text.length).firstOrNull { end -> stops.any { text.substring(0, end).endsWith(it) } }
            val expected = if (end == null) {
                text
            } else {
                text.substring(0, end - stops.filter { text.substring(0, end).endsWith(it) }.maxOf { it.length })
            }
            var read = 0
            var given = ""
            for (piece in cut) {
                given += matcher.add(piece)
                read += piece.length
                if (!matcher.found) {
                    val waits = text.substring(given.length, read)
                    assertTrue(waits, waits.isEmpty() || stops.any { it.startsWith(waits) && it.length > waits.length })
                }
            }
            assertEquals(end != null, matcher.found)
            assertEquals(expected, given + matcher.rest())
        }
    }
}
