package dev.alc.runtime.template

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test

class LoopTest {
    private val items: List<Value> = listOf(Num(7), Num(8), Num(9))

    private fun Loop.int(name: String) = (attribute(name) as Num).long

    private fun Loop.holds(name: String) = (attribute(name) as Bool).value

    @Test
    fun `counts from both ends`() {
        val loop = Loop(items.iterator(), items.size)
        loop.advance()
        assertEquals(Num(8), loop.advance())
        assertEquals(listOf(2L, 1L, 2L, 1L, 3L), COUNTS.map { loop.int(it) })
        assertEquals(Num(7), loop.attribute("previtem"))
        assertEquals(Num(9), loop.attribute("nextitem"))
        assertEquals(false, loop.holds("last"))
        assertEquals(Num(9), loop.advance())
        assertEquals(true, loop.holds("last"))
        assertEquals(Undefined(""), loop.attribute("nextitem"))
        assertNull(loop.advance())
    }

    @Test
    fun `finds out its length in the middle`() {
        for (asked in listOf("length", "last", "nextitem")) {
            val loop = Loop(items.iterator(), null)
            loop.advance()
            loop.attribute(asked)
            assertEquals(listOf(1L, 0L, 3L, 2L, 3L), COUNTS.map { loop.int(it) })
            assertEquals(listOf(8L, 9L), List(2) { (loop.advance() as Num).long })
            assertNull(loop.advance())
        }
    }

    @Test
    fun `looks ahead only when asked`() {
        var taken = 0
        val loop = Loop(items.asSequence().onEach { taken++ }.iterator(), null)
        loop.advance()
        assertEquals(1L, loop.int("index"))
        assertEquals(1, taken)
        loop.attribute("last")
        assertEquals(2, taken)
    }

    private companion object {
        val COUNTS = listOf("index", "index0", "revindex", "revindex0", "length")
    }
}
