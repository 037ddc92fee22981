package dev.alc.runtime

import dev.alc.engine.MarkedText
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelNotFoundException
import dev.alc.engine.Tokenizer
import dev.alc.runtime.tokenizer.BytePairEncoder
import dev.alc.runtime.tokenizer.CharClasses
import dev.alc.runtime.tokenizer.Gpt2Splitter
import dev.alc.runtime.tokenizer.IntList
import dev.alc.runtime.tokenizer.SpecialTokens
import dev.alc.runtime.tokenizer.TokenizerData
import java.io.File
import java.io.IOException
import java.nio.file.NoSuchFileException

/**
 * A byte-level BPE tokenizer in plain Kotlin, read from a package's `tokenizer.alc`.
 *
 * Its ids are those of the Hugging Face `tokenizers` library for the same vocabulary. A byte that
 * the vocabulary has no token for is left out, as there. Encoding takes time in proportion to
 * the length of the text (times its logarithm inside one unbroken word).
 *
 * It does not normalize Unicode. SentencePiece and WordPiece vocabularies have another form,
 * which [read] refuses by name.
 */
public class TVMTokenizer private constructor(private val data: TokenizerData) : Tokenizer {
    private val splitter = Gpt2Splitter(CharClasses(data.runs))
    private val encoder = BytePairEncoder(data)
    private val specials = SpecialTokens(data)

    override val vocabSize: Int
        get() = data.size

    override val startTokens: IntArray
        get() = data.startTokens.copyOf()

    override fun encode(text: MarkedText): IntArray {
        val out = IntList()
        val scratch = BytePairEncoder.Scratch()
        specials.scan(
            text,
            plain = { from, until ->
                splitter.split(text.text, from, until) { start, end ->
                    encoder.encode(text.text, start, end, scratch, out)
                }
            },
            special = out::add,
        )
        return out.toArray()
    }

    override fun tokenBytes(id: Int, previous: Int): ByteArray {
        require(id in 0 until data.size) { "$id is not a token; there are ${data.size}" }
        return data.bytes(id)
    }

    override fun isSpecial(id: Int): Boolean = id in 0 until data.size && data.isControl(id)

    override fun idOf(token: String): Int? {
        val bytes = token.toByteArray(Charsets.UTF_8)
        return (0 until data.size).firstOrNull { data.contentEquals(it, bytes) }
    }

    override fun decode(ids: IntArray, skipSpecial: Boolean): String {
        val kept = ids.filterNot { skipSpecial && isSpecial(it) }.map { tokenBytes(it) }
        val bytes = ByteArray(kept.sumOf { it.size })
        var at = 0
        for (piece in kept) {
            piece.copyInto(bytes, at)
            at += piece.size
        }
        return String(bytes, Charsets.UTF_8)
    }

    /** Readers of the compact form. */
    public companion object {
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
        public fun parse(bytes: ByteArray, name: String = "tokenizer.alc"): TVMTokenizer =
            TVMTokenizer(TokenizerData.parse(bytes, name))
    }
}
