package dev.alc.runtime.tokenizer

/** Byte-pair encoding of characters by listed merges, as the `tokenizers` library does it. */
internal class CharacterPairModel(private val data: TokenizerData) : TokenModel {
    private val merges = MergeTable(data.merges)
    private val tokens = Vocabulary(data) { data.isNormal(it) || data.isUserDefined(it) }
    private val unknown = UnknownCharacters(data)

    override fun encoder(): PieceEncoder {
        val chain = merges.Chain()
        val bytes = ByteArray(4)
        return PieceEncoder { text, from, until, out ->
            val whole = if (data.ignoreMerges) whole(text, from, until) else TokenModel.NONE
            if (whole != TokenModel.NONE) {
                out.add(whole)
            } else {
                val symbols = IntList()
                var at = from
                var wasUnknown = false
                while (at < until) {
                    val point = text.codePointAt(at)
                    val end = Utf8.put(point, bytes, 0)
                    val id = tokens.find(bytes, 0, end)
                    if (id != TokenModel.NONE) {
                        symbols.add(id)
                    } else {
                        unknown.add(bytes, 0, end, wasUnknown, symbols)
                    }
                    wasUnknown = id == TokenModel.NONE
                    at += Character.charCount(point)
                }
                chain.reserve(symbols.size)
                for (index in 0 until symbols.size) chain.ids[index] = symbols[index]
                chain.merge(symbols.size)
                chain.forEach { out.add(chain.ids[it]) }
            }
        }
    }

    private fun whole(text: String, from: Int, until: Int): Int {
        val bytes = ByteArray(Utf8.most(until - from))
        return tokens.find(bytes, 0, Utf8.put(text, from, until, bytes))
    }
}
