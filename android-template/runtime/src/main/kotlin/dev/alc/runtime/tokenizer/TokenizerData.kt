package dev.alc.runtime.tokenizer

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import java.nio.BufferUnderflowException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.CRC32

/**
 * The contents of a `tokenizer.alc`, version 2; the compiler's `tokenizer.py` describes the
 * format, word for word in this order.
 */
internal class TokenizerData private constructor(data: ByteBuffer, name: String) {
    val model: Int
    val splitter: Int
    private val flags: Int

    /** The token of a character without one, or [TokenModel.NONE]. */
    val unknown: Int

    /** Leading spaces that decoding takes off the first token, negative for all. */
    val stripSpaces: Int
    val longestWord: Int
    val startTokens: IntArray
    private val ends: IntArray

    /** Left, right and resulting token of each merge, in order of rank. */
    val merges: IntArray

    /** Runs of characters with their classes. */
    val runs: IntArray
    val ranks: IntArray
    val scores: DoubleArray

    /** The code and the payload of each step of normalization. */
    val steps: List<Pair<Int, ByteBuffer>>

    /** What tokens that continue a word begin with. */
    val prefix: String
    private val types: ByteArray

    /** The bytes of all tokens. */
    val blob: ByteArray

    init {
        demand(name, "version", data.getInt(), VERSION..VERSION)
        model = demand(name, "kind of model", data.getInt(), BYTE_BPE..WORDPIECE)
        splitter = demand(name, "kind of splitter", data.getInt(), SPLITTER_NONE..SPLITTER_BERT)
        flags = data.getInt()
        unknown = data.getInt()
        stripSpaces = data.getInt()
        longestWord = data.getInt()
        val counts = IntArray(9) { data.count(0) }
        val (tokens, merges, runs, start, ranks) = counts
        startTokens = ints(data, start)
        ends = ints(data, tokens)
        this.merges = ints(data, Math.multiplyExact(3, merges))
        this.runs = ints(data, runs)
        this.ranks = ints(data, ranks)
        scores = DoubleArray(fitting(data, counts[5], Double.SIZE_BYTES)) { data.getDouble() }
        steps = List(fitting(data, counts[6], 2 * Int.SIZE_BYTES)) {
            val code = data.getInt()
            code to slice(data, data.count(1))
        }
        prefix = data.text(fitting(data, counts[7], 1))
        types = ByteArray(fitting(data, tokens, 1)).also { data.get(it) }
        blob = ByteArray(fitting(data, counts[8], 1)).also { data.get(it) }
        if (data.hasRemaining()) damaged("$name has ${data.remaining()} bytes too many")
        check(name)
    }

    val size: Int
        get() = ends.size

    /** Whether a character without a token becomes the tokens of its bytes. */
    val byteFallback: Boolean
        get() = flags and 1 != 0

    /** Whether neighbours without a token become one unknown token. */
    val fuseUnknown: Boolean
        get() = flags and 2 != 0

    /** Whether a piece that is a token is that token, whatever its merges say. */
    val ignoreMerges: Boolean
        get() = flags and 4 != 0

    /** Whether the model works as SentencePiece does where the libraries differ. */
    val sentencePiece: Boolean
        get() = flags and 8 != 0

    /** Whether decoding puts no space before punctuation. */
    val cleanUp: Boolean
        get() = flags and 16 != 0

    fun start(id: Int): Int = if (id == 0) 0 else ends[id - 1]

    fun end(id: Int): Int = ends[id]

    fun length(id: Int): Int = ends[id] - start(id)

    fun bytes(id: Int): ByteArray = blob.copyOfRange(start(id), ends[id])

    fun text(id: Int): String = String(blob, start(id), length(id), Charsets.UTF_8)

    fun isNormal(id: Int): Boolean = types[id] == NORMAL

    /** Whether the token is no text: a control token or the unknown token. */
    fun isControl(id: Int): Boolean = types[id] == CONTROL || types[id] == UNKNOWN

    fun isUserDefined(id: Int): Boolean = types[id] == USER_DEFINED

    fun isUnused(id: Int): Boolean = types[id] == UNUSED

    fun isByte(id: Int): Boolean = types[id] == BYTE

    fun contentEquals(id: Int, other: ByteArray): Boolean {
        val start = start(id)
        return length(id) == other.size && other.indices.all { blob[start + it] == other[it] }
    }

    fun firstByte(id: Int): Int = blob[start(id)].toInt() and 0xff

    /** The tokens that [accept] takes, by their text. */
    fun trie(accept: (id: Int) -> Boolean): Trie {
        val trie = Trie()
        for (id in 0 until size) if (accept(id) && length(id) > 0) trie.add(text(id), id)
        return trie
    }

    /** Refuses numbers on which the models would fall over later. */
    private fun check(name: String) {
        var before = 0
        for (end in ends) {
            if (end < before) damaged("$name has tokens that end before they begin")
            before = end
        }
        if (before != blob.size) damaged("$name has tokens of other lengths than it says")
        val outside = { id: Int -> id !in 0 until size }
        val mustKnow = model == UNIGRAM || model == WORDPIECE
        val scored = (model != SCORES_BPE || ranks.size == size) && (model != UNIGRAM || scores.size == size)
        if (!scored || merges.any(outside) || startTokens.any(outside) || ranks.any { it < 0 } ||
            (unknown != TokenModel.NONE || mustKnow) && outside(unknown)
        ) {
            damaged("$name speaks of tokens that it does not have")
        }
    }

    companion object {
        const val BYTE_BPE = 1
        const val MERGES_BPE = 2
        const val SCORES_BPE = 3
        const val UNIGRAM = 4
        const val WORDPIECE = 5
        const val SPLITTER_NONE = 0
        const val SPLITTER_GPT2 = 1
        const val SPLITTER_LLAMA3 = 2
        const val SPLITTER_QWEN2 = 3
        const val SPLITTER_WORDS = 4
        const val SPLITTER_BERT = 5
        private const val NORMAL: Byte = 1
        private const val UNKNOWN: Byte = 2
        private const val CONTROL: Byte = 3
        private const val USER_DEFINED: Byte = 4
        private const val UNUSED: Byte = 5
        private const val BYTE: Byte = 6
        private const val VERSION = 2
        private val MAGIC = "ALCTOKEN".toByteArray(Charsets.US_ASCII)

        fun parse(bytes: ByteArray, name: String): TokenizerData {
            val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
            if (bytes.size < MAGIC.size + 4 || !MAGIC.indices.all { bytes[it] == MAGIC[it] }) {
                damaged("$name is not a tokenizer.alc")
            }
            val sum = CRC32().apply { update(bytes, 0, bytes.size - 4) }.value.toInt()
            if (data.getInt(bytes.size - 4) != sum) damaged("$name is damaged: its checksum is wrong")
            data.position(MAGIC.size)
            data.limit(bytes.size - 4)
            return try {
                TokenizerData(data, name)
            } catch (failure: BufferUnderflowException) {
                throw ModelDamagedException("$name is truncated", failure)
            } catch (failure: NegativeArraySizeException) {
                throw ModelDamagedException("$name counts wrongly", failure)
            } catch (failure: ArithmeticException) {
                throw ModelDamagedException("$name counts wrongly", failure)
            }
        }

        private fun damaged(message: String): Nothing = throw ModelDamagedException(message)

        private fun demand(name: String, what: String, value: Int, known: IntRange): Int {
            if (value in known) return value
            throw ModelIncompatibleException("$name has the $what $value, not ${known.joinToString()}")
        }

        private fun ints(data: ByteBuffer, count: Int): IntArray {
            val result = IntArray(fitting(data, count, Int.SIZE_BYTES))
            data.asIntBuffer().get(result)
            data.position(data.position() + 4 * count)
            return result
        }

        /** The [count], refused where the rest of the file cannot hold so many. */
        private fun fitting(data: ByteBuffer, count: Int, bytes: Int): Int {
            if (count.toLong() * bytes > data.remaining()) throw BufferUnderflowException()
            return count
        }

        private fun slice(data: ByteBuffer, length: Int): ByteBuffer {
            val slice = data.slice().order(ByteOrder.LITTLE_ENDIAN)
            slice.limit(length)
            data.position(data.position() + length)
            return slice
        }
    }
}
