package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.arbitrary.Codepoint
import io.kotest.property.arbitrary.byte
import io.kotest.property.arbitrary.byteArray
import io.kotest.property.arbitrary.choice
import io.kotest.property.arbitrary.constant
import io.kotest.property.arbitrary.int
import io.kotest.property.arbitrary.list
import io.kotest.property.arbitrary.map
import io.kotest.property.arbitrary.string
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** However tokens cut a text's bytes, the text comes whole and in whole characters. */
class StreamingDetokenizerTest {
    @Test
    fun `any cut of any text gives the text`() = property {
        checkAll(TEXT, CUTS) { text, cuts ->
            val whole = text.toByteArray()
            assertEquals(String(whole), stream(cut(whole, cuts)))
        }
    }

    @Test
    fun `any cut of any bytes gives what Java makes of them whole`() = property {
        checkAll(Arb.list(Arb.choice(BYTES, TEXT.map { it.toByteArray() }, BROKEN), 0..6), CUTS) { parts, cuts ->
            val whole = parts.fold(ByteArray(0)) { all, part -> all + part }
            assertEquals(String(whole, Charsets.UTF_8), stream(cut(whole, cuts)))
        }
    }

    @Test
    fun `text waits no longer than its character needs`() = property {
        checkAll(TEXT) { text ->
            val detokenizer = StreamingDetokenizer(Pieces(text.toByteArray().map { byteArrayOf(it) }))
            val given = StringBuilder()
            var token = 0
            for (character in text.codePoints().toArray()) {
                val letters = String(Character.toChars(character))
                val bytes = letters.toByteArray().size
                repeat(bytes - 1) { assertEquals("", detokenizer.add(token++)) }
                given.append(detokenizer.add(token++))
                assertTrue(given.endsWith(letters))
            }
            assertEquals("", detokenizer.finish())
        }
    }

    @Test
    fun `a finished one begins anew`() {
        val half = "😀".toByteArray().copyOf(2)
        val detokenizer = StreamingDetokenizer(Pieces(listOf(half, "a".toByteArray())))
        assertEquals("", detokenizer.add(0))
        assertEquals("\uFFFD", detokenizer.finish())
        assertEquals("a", detokenizer.add(1))
        assertEquals("", detokenizer.finish())
    }

    /** The text of [pieces] as it comes, each part of it checked to be whole characters. */
    private fun stream(pieces: List<ByteArray>): String {
        val detokenizer = StreamingDetokenizer(Pieces(pieces))
        val parts = pieces.indices.map(detokenizer::add) + detokenizer.finish()
        for (part in parts) {
            val characters = part.codePoints().toArray()
            assertTrue(part, characters.none { it in Char.MIN_SURROGATE.code..Char.MAX_SURROGATE.code })
        }
        return parts.joinToString("")
    }

    /** Each of [cuts] says how many bytes the next piece has; the rest is the last piece. */
    private fun cut(bytes: ByteArray, cuts: List<Int>): List<ByteArray> {
        val pieces = ArrayList<ByteArray>()
        var at = 0
        for (length in cuts) {
            val end = minOf(at + length, bytes.size)
            pieces += bytes.copyOfRange(at, end)
            at = end
        }
        return pieces + bytes.copyOfRange(at, bytes.size)
    }

    private fun property(block: suspend () -> Any): Unit = runBlocking {
        block()
        Unit
    }

    /** Token `i` is `pieces[i]`. */
    private class Pieces(private val pieces: List<ByteArray>) : Tokenizer {
        override val vocabSize get() = pieces.size
        override val startTokens = IntArray(0)

        override fun encode(text: MarkedText) = throw UnsupportedOperationException()

        override fun tokenBytes(id: Int, previous: Int) = pieces[id]

        override fun isSpecial(id: Int) = false

        override fun idOf(token: String): Int? = null

        override fun decode(ids: IntArray, skipSpecial: Boolean) = throw UnsupportedOperationException()
    }

    private companion object {
        /** Characters of one to four bytes, surrogates as pairs only. */
        val CHARACTER = Arb.choice(
            Arb.int(0..0x7F),
            Arb.int(0x80..0x7FF),
            Arb.int(0x800..0xD7FF),
            Arb.int(0xE000..0xFFFF),
            Arb.int(0x10000..0x10FFFF),
        ).map(::Codepoint)
        val TEXT = Arb.string(0..40, CHARACTER)
        val BYTES = Arb.byteArray(Arb.int(0..12), Arb.byte())

        /** Beginnings of characters, encoded surrogates, overlong forms, and what is past Unicode. */
        val BROKEN = Arb.choice(
            listOf("f09f98", "e282", "c3", "eda080", "edb080", "c080", "e08080", "f0808080", "f4908080", "80")
                .map { hex -> Arb.constant(hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()) },
        )
        val CUTS = Arb.list(Arb.int(0..5), 0..60)
    }
}
