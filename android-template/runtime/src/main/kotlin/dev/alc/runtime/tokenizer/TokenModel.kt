package dev.alc.runtime.tokenizer

/** Turns pieces of text into tokens. Immutable; what an encoding needs is in its [PieceEncoder]. */
internal fun interface TokenModel {
    /** A new encoder, for one thread. */
    fun encoder(): PieceEncoder

    companion object {
        /** No token, or no rank. */
        const val NONE = -1

        /** The model that [data] describes. */
        fun of(data: TokenizerData): TokenModel = when (data.model) {
            TokenizerData.BYTE_BPE -> BytePairModel(data)
            TokenizerData.MERGES_BPE -> CharacterPairModel(data)
            TokenizerData.SCORES_BPE -> ScoredPairModel(data)
            TokenizerData.UNIGRAM -> UnigramModel(data)
            else -> WordPieceModel(data)
        }
    }
}

/** Encodes one piece after another; has working memory, so it serves one thread. */
internal fun interface PieceEncoder {
    /** Adds the tokens of `text[from, until)`, in which surrogates are paired, to [out]. */
    fun encode(text: String, from: Int, until: Int, out: IntList)
}

/** What characters without a token become: the tokens of their bytes, or the unknown token. */
internal class UnknownCharacters(private val data: TokenizerData) {
    private val byteTokens = IntArray(256) { TokenModel.NONE }

    init {
        for (id in 0 until data.size) {
            if (data.isByte(id) && data.length(id) == 1) byteTokens[data.firstByte(id)] = id
        }
    }

    /**
     * Adds what stands for the character `bytes[from, until)` to [out].
     *
     * @param again whether the character before it had no token either.
     */
    fun add(bytes: ByteArray, from: Int, until: Int, again: Boolean, out: IntList) {
        if (data.byteFallback) {
            for (at in from until until) out.add(byteTokens[bytes[at].toInt() and 0xff])
        } else if (data.unknown != TokenModel.NONE && !(again && data.fuseUnknown)) {
            out.add(data.unknown)
        }
    }
}

/** A growing list of ints. */
internal class IntList {
    private var values = IntArray(64)

    var size: Int = 0
        private set

    operator fun get(index: Int): Int = values[index]

    operator fun set(index: Int, value: Int) {
        values[index] = value
    }

    fun add(value: Int) {
        if (size == values.size) values = values.copyOf(2 * size)
        values[size++] = value
    }

    fun clear() = truncate(0)

    /** Leaves the first [count] values. */
    fun truncate(count: Int) {
        size = count
    }

    fun toArray(): IntArray = values.copyOf(size)
}

/** UTF-8 of a text whose surrogates are paired. */
internal object Utf8 {
    /** The most bytes that [units] UTF-16 units take. */
    fun most(units: Int): Int = 3 * units

    /** Writes the code point [point] to [target] at [at]; returns where it ends. */
    fun put(point: Int, target: ByteArray, at: Int): Int {
        var end = at
        if (point < 0x80) {
            target[end++] = point.toByte()
            return end
        }
        when {
            point < 0x800 -> target[end++] = (0xc0 or (point shr 6)).toByte()
            else -> {
                if (point < 0x10000) {
                    target[end++] = (0xe0 or (point shr 12)).toByte()
                } else {
                    target[end++] = (0xf0 or (point shr 18)).toByte()
                    target[end++] = (0x80 or ((point shr 12) and 0x3f)).toByte()
                }
                target[end++] = (0x80 or ((point shr 6) and 0x3f)).toByte()
            }
        }
        target[end++] = (0x80 or (point and 0x3f)).toByte()
        return end
    }

    /** Writes `text[from, until)` to the start of [target]; returns where it ends. */
    fun put(text: String, from: Int, until: Int, target: ByteArray): Int {
        var at = from
        var end = 0
        while (at < until) {
            val point = text.codePointAt(at)
            end = put(point, target, end)
            at += Character.charCount(point)
        }
        return end
    }
}
