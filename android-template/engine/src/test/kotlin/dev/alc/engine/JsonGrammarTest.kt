package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.RandomSource
import io.kotest.property.arbitrary.long
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import kotlin.random.Random

class JsonGrammarTest {
    /** A vocabulary of [pieces]; the ids behind them are control tokens. A first space falls away. */
    private class Pieces(val pieces: List<ByteArray>, private val controls: Int = 2) : Tokenizer {
        override val vocabSize = pieces.size + controls
        override val startTokens = IntArray(0)

        override fun encode(text: MarkedText) = error("not used")

        override fun tokenBytes(id: Int, previous: Int): ByteArray {
            require(id in 0 until vocabSize)
            val piece = pieces.getOrElse(id) { "{\"control\":1}".toByteArray() }
            val strips = previous == Tokenizer.NO_TOKEN && piece.firstOrNull() == ' '.code.toByte()
            return if (strips) piece.copyOfRange(1, piece.size) else piece
        }

        override fun isSpecial(id: Int) = id >= pieces.size

        override fun idOf(token: String): Int? = error("not used")

        override fun decode(ids: IntArray, skipSpecial: Boolean) = error("not used")
    }

    private val bytes = (0..255).map { byteArrayOf(it.toByte()) }

    private fun words(vararg words: String) = words.map { it.toByteArray() }

    private fun TokenSet.ids() = (0 until vocabSize).filter { it in this }

    /** All bytes, and pieces cut from objects so that they go over the borders of lexemes. */
    private fun vocabulary(random: Random): Pieces {
        val pieces = JsonText.objects.generate(RandomSource(random, 0)).take(60).map { (whole) ->
            val from = random.nextInt(whole.size)
            whole.copyOfRange(from, minOf(whole.size, from + 1 + random.nextInt(8)))
        }
        val brackets = words("}}", "]}", "}}]}]", "}}}}}}}}", "{{", "[[[", "\"}", "\",\"", "\":")
        return Pieces(bytes + pieces + brackets + words("", " ", "  ", "tru", "u00"))
    }

    /** The tokens of which every byte leads on behind [before], each tried by itself. */
    private fun fitting(tokenizer: Pieces, before: ByteArray, isFirst: Boolean): List<Int> =
        tokenizer.pieces.indices.filter { id ->
            val piece = tokenizer.tokenBytes(id, if (isFirst) Tokenizer.NO_TOKEN else 0)
            val state = JsonState()
            check(before.all(state::step))
            piece.isNotEmpty() && piece.all(state::step)
        }

    @Test
    fun `exactly the tokens that lead on are allowed`() = runBlocking<Unit> {
        checkAll(30, Arb.long()) { seed ->
            val random = Random(seed)
            val tokenizer = vocabulary(random)
            val grammar = JsonGrammar(tokenizer, setOf(tokenizer.pieces.size))
            repeat(4) {
                val answer = grammar.begin()
                var text = ByteArray(0)
                var previous = Tokenizer.NO_TOKEN
                for (step in 0 until 60) {
                    if (answer.finished) break
                    val allowed = answer.allowed().ids()
                    assertEquals(fitting(tokenizer, text, previous == Tokenizer.NO_TOKEN), allowed)
                    // Rather what nests than text, of which there is most.
                    val nesting = allowed.filter { id -> tokenizer.pieces[id].any { it in NESTING } }
                    val token = nesting.ifEmpty { allowed }.random(random)
                    text += tokenizer.tokenBytes(token, previous)
                    previous = token
                    answer.accept(token)
                }
                assertEquals(if (answer.finished) Verdict.WHOLE else Verdict.BEGINNING, JsonText.judge(text))
            }
        }
    }

    @Test
    fun `an object is allowed in whatever tokens it comes`() = runBlocking<Unit> {
        val tokenizer = vocabulary(Random(1))
        val grammar = JsonGrammar(tokenizer, setOf(tokenizer.pieces.size))
        checkAll(300, JsonText.objects, Arb.long()) { text, seed ->
            val random = Random(seed)
            val answer = grammar.begin()
            var at = 0
            var previous = Tokenizer.NO_TOKEN
            while (at < text.size) {
                val token = tokenizer.pieces.indices.filter { id ->
                    val piece = tokenizer.tokenBytes(id, previous)
                    piece.isNotEmpty() && at + piece.size <= text.size &&
                        piece.contentEquals(text.copyOfRange(at, at + piece.size))
                }.random(random)
                assertTrue(token in answer.allowed())
                at += tokenizer.tokenBytes(token, previous).size
                answer.accept(token)
                previous = token
            }
            assertTrue(answer.finished)
        }
    }

    @Test
    fun `an answer ends behind its object, with a token that ends answers`() {
        val tokenizer = Pieces(bytes + words("{}", "}\n"))
        val (end, control) = listOf(258, 259)
        val answer = JsonGrammar(tokenizer, setOf(end)).begin()
        assertFalse(end in answer.allowed())
        answer.accept('{'.code)
        assertFalse(listOf(end, control, 257).any { it in answer.allowed() })
        answer.accept('}'.code)
        assertTrue(answer.finished)
        assertEquals(listOf(end), answer.allowed().ids())
        answer.accept(end)
        assertTrue(answer.finished)
        assertThrows(IllegalArgumentException::class.java) { answer.accept(control) }
    }

    @Test
    fun `a token that does not lead on is refused`() {
        val answer = JsonGrammar(Pieces(bytes), setOf(256)).begin()
        val refusal = assertThrows(IllegalArgumentException::class.java) { answer.accept('['.code) }
        assertTrue(refusal.message!!, "token 91 does not lead on" in refusal.message!!)
        assertThrows(IllegalArgumentException::class.java) { answer.accept(256) }
    }

    @Test
    fun `the first token counts as it stands at the beginning of a text`() {
        val tokenizer = Pieces(bytes + words(" {", "  {", " "))
        val answer = JsonGrammar(tokenizer, setOf(259)).begin()
        // The first loses one space; what it has besides is the gap before the object.
        assertTrue(256 in answer.allowed() && 257 in answer.allowed())
        assertFalse("a token without text is no beginning", 258 in answer.allowed())
        answer.accept(257)
        assertTrue(' '.code in answer.allowed())
        answer.accept('"'.code)
        assertTrue(257 in answer.allowed())
    }

    @Test
    fun `a vocabulary without the tokens that JSON needs gives an error that says so`() {
        val nothing = JsonGrammar(Pieces(words("a", "b")), emptySet()).begin()
        assertThrows(LogitsException::class.java) { nothing.allowed() }
        val stuck = JsonGrammar(Pieces(words("{", "\"", "a", "}")), emptySet()).begin()
        for (token in listOf(0, 1, 2)) stuck.accept(token)
        assertEquals(listOf(0, 1, 2, 3), stuck.allowed().ids())
        stuck.accept(1)
        val error = assertThrows(LogitsException::class.java) { stuck.allowed() }
        assertEquals("the vocabulary has no token with which JSON can go on (at colon, 1 deep)", error.message)
    }

    @Test
    fun `answers side by side on many threads get the masks that they get alone`() {
        val tokenizer = vocabulary(Random(3))
        fun walk(grammar: JsonGrammar, seed: Int): List<Int> {
            val random = Random(seed)
            val answer = grammar.begin()
            val tokens = mutableListOf<Int>()
            while (!answer.finished && tokens.size < 60) {
                tokens += answer.allowed().ids().random(random).also(answer::accept)
            }
            return tokens
        }
        val alone = (0 until 40).map { walk(JsonGrammar(tokenizer, emptySet()), it) }
        val shared = JsonGrammar(tokenizer, emptySet())
        val threads = Executors.newFixedThreadPool(4)
        val together = threads.invokeAll((0 until 40).map { Callable { walk(shared, it) } }).map { it.get() }
        threads.shutdown()
        assertEquals(alone, together)
    }

    private companion object {
        val NESTING = "{}[]\"".toByteArray()
    }
}
