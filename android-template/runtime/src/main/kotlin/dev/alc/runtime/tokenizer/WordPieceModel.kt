package dev.alc.runtime.tokenizer

/** The longest token first, inside words; a word of which a part has no token is unknown. */
internal class WordPieceModel(private val data: TokenizerData) : TokenModel {
    private val tokens = data.trie(data::isNormal)

    /** Where tokens that continue a word begin, behind their prefix. */
    private val continuing = tokens.walk(0, data.prefix)

    override fun encoder(): PieceEncoder {
        val found = IntList()
        return PieceEncoder { text, from, until, out ->
            found.clear()
            var at = if (text.codePointCount(from, until) > data.longestWord) until else from
            while (at < until) {
                var node = if (at == from) 0 else continuing
                var end = at
                var best = Trie.NONE
                for (index in at until until) {
                    if (node != Trie.NONE) node = tokens.child(node, text[index])
                    if (node == Trie.NONE) break
                    if (tokens.value(node) != Trie.NONE) {
                        best = tokens.value(node)
                        end = index + 1
                    }
                }
                if (best == Trie.NONE) {
                    found.clear()
                    break
                }
                found.add(best)
                at = end
            }
            if (found.size == 0) out.add(data.unknown)
            for (index in 0 until found.size) out.add(found[index])
        }
    }
}
