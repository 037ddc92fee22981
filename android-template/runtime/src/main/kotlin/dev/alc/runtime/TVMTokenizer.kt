package dev.alc.runtime

import dev.alc.engine.MarkedText
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelNotFoundException
import dev.alc.engine.Tokenizer
import dev.alc.runtime.tokenizer.IntList
import dev.alc.runtime.tokenizer.Normalizer
import dev.alc.runtime.tokenizer.SpecialTokens
import dev.alc.runtime.tokenizer.Splitter
import dev.alc.runtime.tokenizer.TokenModel
import dev.alc.runtime.tokenizer.TokenizerData
import java.io.File
import java.io.IOException
import java.nio.BufferUnderflowException
import java.nio.file.NoSuchFileException

/**
 * A tokenizer in plain Kotlin, read from a package's `tokenizer.alc`: byte-level BPE, BPE of
 * characters (SentencePiece's), unigram and WordPiece.
 *
 * Its ids are those of the Hugging Face `tokenizers` library, or of SentencePiece where the
 * vocabulary came in its form, except that a user's text never becomes a control token. A byte or
 * character that the vocabulary has nothing for is left out, as there. Encoding takes time in
 * proportion to the length of the text (times its logarithm inside one unbroken word). Bytes that
 * are no UTF-8 become U+FFFD by themselves, and take no neighbours with them.
 */
public class TVMTokenizer private constructor(private val data: TokenizerData, name: String) :
    Tokenizer {
    private val specials = SpecialTokens(data)
    private val normalizer = Normalizer(data, name)
    private val splitter = Splitter.of(data)
    private val model = TokenModel.of(data)

    override val vocabSize: Int
        get() = data.size

    override val startTokens: IntArray
        get() = data.startTokens.copyOf()

    override fun encode(text: MarkedText): IntArray {
        val out = IntList()
        val encoder = model.encoder()
        val whole = MarkedText(paired(text.text), text.markup, text.continues)
        specials.scan(
            whole,
            plain = { from, until ->
                var piece = whole.text
                var start = from
                var end = until
                if (!normalizer.isIdentity) {
                    piece = normalizer.apply(piece.substring(from, until), place(whole, from))
                    start = 0
                    end = piece.length
                }
                splitter.split(piece, start, end) { first, last ->
                    encoder.encode(piece, first, last, out)
                }
            },
            special = out::add,
        )
        return out.toArray()
    }

    override fun tokenBytes(id: Int, previous: Int): ByteArray {
        require(id in 0 until data.size) { "$id is not a token; there are ${data.size}" }
        val bytes = data.bytes(id)
        val first = previous == Tokenizer.NO_TOKEN
        return when {
            data.model == TokenizerData.BYTE_BPE -> bytes
            data.model == TokenizerData.WORDPIECE -> if (first) bytes else continued(data.text(id))
            data.isControl(id) || data.isByte(id) -> bytes
            else -> spaced(data.text(id), first).toByteArray(Charsets.UTF_8)
        }
    }

    override fun isSpecial(id: Int): Boolean = id in 0 until data.size && data.isControl(id)

    override fun idOf(token: String): Int? {
        val bytes = token.toByteArray(Charsets.UTF_8)
        return (0 until data.size).firstOrNull { data.contentEquals(it, bytes) }
    }

    override fun decode(ids: IntArray, skipSpecial: Boolean): String {
        var previous = Tokenizer.NO_TOKEN
        val kept = ids.filterNot { skipSpecial && isSpecial(it) }
            .map { id -> tokenBytes(id, previous).also { previous = id } }
        val bytes = ByteArray(kept.sumOf { it.size })
        var at = 0
        for (piece in kept) {
            piece.copyInto(bytes, at)
            at += piece.size
        }
        return String(bytes, Charsets.UTF_8)
    }

    private fun place(text: MarkedText, from: Int): Normalizer.Place = when {
        from > 0 -> Normalizer.Place.BEHIND_TOKEN
        text.continues -> Normalizer.Place.INSIDE
        else -> Normalizer.Place.FIRST
    }

    /** A token of SentencePiece with spaces, of which the first token of a text loses some. */
    private fun spaced(token: String, first: Boolean): String = when {
        !first || data.stripSpaces == 0 -> token.replace(SPACE, ' ')
        data.stripSpaces < 0 -> token.filterNot { it == SPACE }
        else -> token.replace(SPACE, ' ').removePrefix(" ")
    }

    /** A token of WordPiece that is not the first. */
    private fun continued(token: String): ByteArray {
        val text = when {
            data.prefix.isNotEmpty() && token.startsWith(data.prefix) -> token.removePrefix(data.prefix)
            data.cleanUp && CLOSE.any { token.startsWith(it) } -> token
            else -> " $token"
        }
        return text.toByteArray(Charsets.UTF_8)
    }

    /** Readers of the compact form. */
    public companion object {
        /** What stands for a space in SentencePiece's vocabularies. */
        private const val SPACE = '\u2581'

        /** What the reference writes close to the word before it. */
        private val CLOSE = listOf(".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re")

        /**
         * The tokenizer in [file].
         *
         * @throws ModelNotFoundException if there is no such file.
         * @throws ModelDamagedException if it is not whole.
         * @throws dev.alc.engine.ModelIncompatibleException if it is of another version or kind.
         */
        public fun read(file: File): TVMTokenizer = parse(
            try {
                file.readBytes()
            } catch (failure: IOException) {
                val missing = failure is NoSuchFileException || !file.exists()
                throw if (missing) {
                    ModelNotFoundException("${file.path} is missing", failure)
                } else {
                    ModelDamagedException("${file.path} cannot be read: ${failure.message}", failure)
                }
            },
            file.name,
        )

        /** The tokenizer in [bytes]; [name] stands in messages. Throws as [read] does. */
        public fun parse(bytes: ByteArray, name: String = "tokenizer.alc"): TVMTokenizer = try {
            TVMTokenizer(TokenizerData.parse(bytes, name), name)
        } catch (failure: BufferUnderflowException) {
            throw ModelDamagedException("$name is truncated", failure)
        } catch (failure: NegativeArraySizeException) {
            throw ModelDamagedException("$name counts wrongly", failure)
        } catch (failure: IndexOutOfBoundsException) {
            throw ModelDamagedException("$name speaks of what it does not have", failure)
        }

        /** [text] with U+FFFD for each surrogate that is not one of a pair. */
        private fun paired(text: String): String {
            fun alone(at: Int): Boolean = when {
                text[at].isHighSurrogate() -> at + 1 == text.length || !text[at + 1].isLowSurrogate()
                text[at].isLowSurrogate() -> at == 0 || !text[at - 1].isHighSurrogate()
                else -> false
            }
            if (text.indices.none(::alone)) return text
            return String(CharArray(text.length) { if (alone(it)) '\ufffd' else text[it] })
        }
    }
}
