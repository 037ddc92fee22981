package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.arbitrary.long
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.random.Random

class JsonStateTest {
    /** How many bytes of [bytes] are taken. */
    private fun JsonState.take(bytes: ByteArray): Int = bytes.takeWhile(::step).size

    private fun taken(text: String): String {
        val bytes = text.toByteArray(Charsets.ISO_8859_1)
        return text.take(JsonState().take(bytes))
    }

    private fun isWhole(text: String): Boolean {
        val state = JsonState()
        return text.toByteArray().all(state::step) && state.complete
    }

    @Test
    fun `every object is taken and complete at its last byte`() = runBlocking<Unit> {
        checkAll(2_000, JsonText.objects) { text ->
            val state = JsonState()
            assertEquals(text.size - 1, state.take(text.copyOf(text.size - 1)))
            assertFalse(state.complete)
            assertTrue(state.step(text.last()))
            assertTrue(state.complete)
            assertEquals(Verdict.WHOLE, JsonText.judge(text))
        }
    }

    @Test
    fun `a changed text is refused at the byte with which no object goes on`() = runBlocking<Unit> {
        checkAll(2_000, JsonText.objects, Arb.long()) { text, seed ->
            val random = Random(seed)
            val changed = text.toMutableList()
            repeat(1 + random.nextInt(2)) {
                val at = random.nextInt(changed.size)
                when (random.nextInt(4)) {
                    0 -> changed.removeAt(at)
                    1 -> changed.add(at, changed.random(random))
                    2 -> changed[at] = random.nextInt().toByte()
                    3 -> changed.add(at, "{}[]\",:\\u-0.eE \n\r\t".random(random).code.toByte())
                }
                if (changed.isEmpty()) changed += 0
            }
            val bytes = changed.toByteArray()
            val length = JsonState().take(bytes)
            assertTrue(JsonText.judge(bytes.copyOf(length)) != Verdict.REFUSED)
            if (length < bytes.size) assertEquals(Verdict.REFUSED, JsonText.judge(bytes.copyOf(length + 1)))
        }
    }

    @Test
    fun `any way through the bytes that are taken is the beginning of an object and can be ended`() =
        runBlocking<Unit> {
            checkAll(1_000, Arb.long()) { seed ->
                val random = Random(seed)
                val state = JsonState()
                val text = mutableListOf<Byte>()
                repeat(random.nextInt(120)) {
                    val next = JsonState()
                    val candidates = (Byte.MIN_VALUE..Byte.MAX_VALUE).map { it.toByte() }
                        .filter { byte ->
                            next.set(state)
                            next.step(byte)
                        }
                    assertEquals(state.complete, candidates.isEmpty())
                    if (candidates.isNotEmpty()) text += candidates.random(random).also(state::step)
                }
                if (!state.complete) assertEquals(Verdict.BEGINNING, JsonText.judge(text.toByteArray()))
                while (!state.complete) text += ENDINGS.first(state::step)
                assertEquals(Verdict.WHOLE, JsonText.judge(text.toByteArray()))
            }
        }

    @Test
    fun `only an object is an answer`() {
        for (text in listOf("[]", "1", "\"a\"", "true", "x", "}")) assertEquals(text, "", taken(text))
        assertTrue(isWhole("{}"))
        assertEquals("{}", taken("{}\n"))
        assertEquals("{}", taken("{}{}"))
    }

    @Test
    fun `nothing runs on without end between the lexemes`() {
        assertEquals("{ ", taken("{  }"))
        assertEquals("{\n", taken("{\n\n}"))
        assertEquals("{", taken("{\r\n}"))
        assertTrue(isWhole("\n{\n${" ".repeat(32)}\"a\" :\t1\n}"))
        assertEquals("{\n" + " ".repeat(32), taken("{\n" + " ".repeat(33)))
    }

    @Test
    fun `containers nest 64 deep`() {
        val deepest = "{\"a\":" + "[".repeat(63)
        assertEquals(deepest, taken("$deepest["))
        assertEquals(deepest, taken("$deepest{"))
        assertTrue(isWhole(deepest + "1" + "]".repeat(63) + "}"))
    }

    @Test
    fun `numbers are those of JSON and fit a double`() {
        val longest = "9".repeat(20) + "." + "0".repeat(20) + "E+99"
        for (number in listOf("0", "-0", "10", "1.50", "0e0", "9e99", longest)) {
            assertTrue(number, isWhole("{\"a\":$number}"))
        }
        val tooLong = listOf("1e100", "9".repeat(21), "0." + "0".repeat(21))
        for (number in listOf("01", "-a", "+", ".", "1.e", "1e+}", "NaN") + tooLong) {
            assertFalse(number, isWhole("{\"a\":$number}"))
        }
        assertEquals("{\"a\":0", taken("{\"a\":01"))
        assertEquals("{\"a\":1e99", taken("{\"a\":1e999"))
    }

    @Test
    fun `strings are Unicode`() {
        for (text in listOf("\\ud83d\\ude00", "\\uDBFF\\uDFFF", "\\u0000", "\\\"", "\ud83d\ude00", "\u007f")) {
            assertTrue(text, isWhole("{\"$text\":\"$text\"}"))
        }
        val refused = mapOf(
            "\\udc" to "\\ud", "\\ud800\"" to "\\ud800",
            "\\ud800\\n" to "\\ud800\\", "\\ud800\\u0" to "\\ud800\\u",
            "\\ud800\\ud8" to "\\ud800\\ud", "\\x" to "\\", "\\u12g" to "\\u12", "\u0000" to "", "\n" to "",
            // Of UTF-8: overlong, a surrogate, beyond the last character, cut short, on its own.
            "\u00c0" to "", "\u00c1" to "", "\u00e0\u009f" to "\u00e0", "\u00ed\u00a0" to "\u00ed",
            "\u00f0\u008f" to "\u00f0", "\u00f4\u0090" to "\u00f4", "\u00f5" to "",
            "\u00c2\"" to "\u00c2", "\u0080" to "",
        )
        for ((text, beginning) in refused) assertEquals("{\"$beginning", taken("{\"$text"))
    }

    private companion object {
        /** Of these some byte leads on everywhere, and the first that does leads to the end. */
        val ENDINGS = ("\"}]:0{\\udc" + "rtealsnfx").map { it.code.toByte() } +
            listOf(0x80, 0x90, 0xa0).map { it.toByte() }
    }
}
