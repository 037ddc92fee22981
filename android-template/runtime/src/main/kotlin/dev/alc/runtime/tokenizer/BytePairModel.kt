package dev.alc.runtime.tokenizer

/** Byte-level byte-pair encoding: merges of bytes. A byte without a token is left out. */
internal class BytePairModel(data: TokenizerData) : TokenModel {
    private val byteTokens = IntArray(256) { TokenModel.NONE }
    private val merges = MergeTable(data.merges)

    /** Where a piece that is a token is that token: all tokens by their bytes. */
    private val whole = if (data.ignoreMerges) Vocabulary(data, data::isNormal) else null

    init {
        for (id in 0 until data.size) {
            if (data.isNormal(id) && data.length(id) == 1) byteTokens[data.firstByte(id)] = id
        }
    }

    override fun encoder(): PieceEncoder {
        val chain = merges.Chain()
        var bytes = ByteArray(256)
        return PieceEncoder { text, from, until, out ->
            if (bytes.size < Utf8.most(until - from)) bytes = ByteArray(2 * Utf8.most(until - from))
            val end = Utf8.put(text, from, until, bytes)
            val id = whole?.find(bytes, 0, end) ?: TokenModel.NONE
            if (id != TokenModel.NONE) {
                out.add(id)
            } else {
                chain.reserve(end)
                var count = 0
                for (at in 0 until end) {
                    val token = byteTokens[bytes[at].toInt() and 0xff]
                    if (token != TokenModel.NONE) chain.ids[count++] = token
                }
                chain.merge(count)
                chain.forEach { out.add(chain.ids[it]) }
            }
        }
    }
}
