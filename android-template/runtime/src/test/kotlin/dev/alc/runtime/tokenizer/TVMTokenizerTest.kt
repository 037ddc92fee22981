package dev.alc.runtime.tokenizer

import dev.alc.engine.MarkedText
import dev.alc.engine.StreamingDetokenizer
import dev.alc.runtime.TVMTokenizer
import dev.alc.runtime.TestFiles
import io.kotest.property.Arb
import io.kotest.property.arbitrary.Codepoint
import io.kotest.property.arbitrary.choice
import io.kotest.property.arbitrary.element
import io.kotest.property.arbitrary.int
import io.kotest.property.arbitrary.list
import io.kotest.property.arbitrary.map
import io.kotest.property.arbitrary.string
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test
import java.io.File

/** What holds for every text, on the tokenizer of a compiled package (byte-level BPE). */
class TVMTokenizerTest {
    private val file = File(TestFiles.packageFolder(), "tokenizer.alc")
    private val data = TokenizerData.parse(file.readBytes(), file.name)
    private val tokenizer = TVMTokenizer.read(file)

    /** What control tokens are written as. */
    private val controls = (0 until data.size).filter(tokenizer::isSpecial).map(data::text)

    /** Texts of all of Unicode and halves of pairs, with what looks like markup in between. */
    private val texts = Arb.list(
        Arb.choice(
            Arb.string(0..12, Arb.int(0..0x10FFFF).map(::Codepoint)),
            Arb.string(0..12, Arb.int(0x20..0x7E).map(::Codepoint)),
            Arb.element("  ", "\n\n", "\u00A0", "'ll", "e\u0301", "👩‍👩‍👧", "٣", *controls.toTypedArray()),
        ),
        0..8,
    ).map { it.joinToString("") }

    @Test
    fun `a text comes back from its tokens`() = property {
        assumeTrue("only byte-level BPE keeps every byte", data.model == TokenizerData.BYTE_BPE)
        // Vocabularies may lack bytes that their training text had none of.
        val known = (0 until data.size).map(data::bytes).filter { it.size == 1 }.map { it[0] }.toSet()
        checkAll(texts) { any ->
            val text = sound(any).codePoints().toArray().map { String(Character.toChars(it)) }
                .filter { character -> character.toByteArray().all(known::contains) }
                .joinToString("")
            assertEquals(text, tokenizer.decode(tokenizer.encode(text)))
        }
    }

    @Test
    fun `a text streams as it decodes`() = property {
        checkAll(texts) { text ->
            val ids = tokenizer.encode(text)
            val detokenizer = StreamingDetokenizer(tokenizer)
            val streamed = ids.joinToString("", transform = detokenizer::add) + detokenizer.finish()
            assertEquals(tokenizer.decode(ids), streamed)
        }
    }

    @Test
    fun `any tokens stream as they decode`() = property {
        checkAll(Arb.list(Arb.int(0 until data.size), 0..40)) { tokens ->
            val detokenizer = StreamingDetokenizer(tokenizer, skipSpecial = false)
            val streamed = tokens.joinToString("", transform = detokenizer::add) + detokenizer.finish()
            assertEquals(tokenizer.decode(tokens.toIntArray()), streamed)
        }
    }

    @Test
    fun `nothing that a user writes becomes a control token`() = property {
        assertTrue(controls.isNotEmpty())
        checkAll(texts, Arb.element(controls)) { text, control ->
            val ids = tokenizer.encode("$text$control")
            assertTrue(ids.none(tokenizer::isSpecial))
        }
    }

    @Test
    fun `markup becomes its control token and leaves the text around it alone`() = property {
        checkAll(texts, texts, Arb.element(controls)) { before, after, control ->
            val range = before.length until before.length + control.length
            val ids = tokenizer.encode(MarkedText("$before$control$after", listOf(range)))
            val expected = tokenizer.encode(before) + tokenizer.idOf(control)!! +
                tokenizer.encode(MarkedText(after, emptyList(), continues = true))
            assertArrayEquals(expected, ids)
        }
    }

    /** [text] with U+FFFD for halves of pairs. */
    private fun sound(text: String): String = text.codePoints().toArray().joinToString("") { point ->
        val half = point in Char.MIN_SURROGATE.code..Char.MAX_SURROGATE.code
        String(Character.toChars(if (half) 0xFFFD else point))
    }

    private fun property(block: suspend () -> Any): Unit = runBlocking {
        block()
        Unit
    }
}
