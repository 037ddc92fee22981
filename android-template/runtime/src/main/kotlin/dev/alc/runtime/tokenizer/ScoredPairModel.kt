package dev.alc.runtime.tokenizer

/**
 * Byte-pair encoding of characters by the score of what they merge to, as SentencePiece does it.
 * User-defined symbols are found first; an unused token is taken apart again into what it was
 * merged from.
 */
internal class ScoredPairModel(private val data: TokenizerData) : TokenModel {
    private val tokens = Vocabulary(data) {
        data.isNormal(it) || data.isUserDefined(it) || data.isUnused(it)
    }
    private val userDefined = data.trie(data::isUserDefined)
    private val unknown = UnknownCharacters(data)

    override fun encoder(): PieceEncoder {
        val chain = Chain()
        return PieceEncoder { text, from, until, out ->
            var start = from
            var at = from
            while (at < until) {
                val found = userDefined.longest(text, at, until)
                if (found == 0L) {
                    at += Character.charCount(text.codePointAt(at))
                    continue
                }
                chain.encode(text, start, at, out)
                out.add((found ushr 32).toInt())
                at += found.toInt()
                start = at
            }
            chain.encode(text, start, until, out)
        }
    }

    private inner class Chain : SymbolChain() {
        private var bytes = ByteArray(0)
        private var hashes = LongArray(1)

        /** Where each symbol begins, and behind the last one where it ends. */
        private var starts = IntArray(1)

        /** How many bytes the left part of each unused token had. */
        private val leftParts = HashMap<Int, Int>()
        private var wasUnknown = false

        override fun reserve(size: Int) {
            super.reserve(size)
            if (starts.size > size) return
            starts = IntArray(2 * size + 1)
            bytes = ByteArray(Utf8.most(2 * size))
            hashes = LongArray(bytes.size + 1)
        }

        override fun merged(left: Int, right: Int): Long {
            val id = tokens.find(bytes, starts[left], end(right), hashes)
            if (id == TokenModel.NONE) return NO_MERGE
            if (data.isUnused(id)) leftParts[id] = starts[right] - starts[left]
            return data.ranks[id].toLong() shl 32 or id.toLong()
        }

        fun encode(text: String, from: Int, until: Int, out: IntList) {
            reserve(until - from)
            var count = 0
            var end = 0
            var at = from
            while (at < until) {
                val point = text.codePointAt(at)
                starts[count] = end
                end = Utf8.put(point, bytes, end)
                ids[count] = tokens.find(bytes, starts[count], end)
                count++
                at += Character.charCount(point)
            }
            starts[count] = end
            tokens.fill(bytes, end, hashes)
            merge(count)
            wasUnknown = false
            forEach { add(ids[it], starts[it], end(it), out) }
        }

        private fun end(symbol: Int): Int = starts[next[symbol]]

        private fun add(id: Int, start: Int, end: Int, out: IntList) {
            val unused = id != TokenModel.NONE && data.isUnused(id)
            val left = if (unused) leftParts[id] else null
            if (left != null) {
                val middle = start + left
                add(tokens.find(bytes, start, middle, hashes), start, middle, out)
                add(tokens.find(bytes, middle, end, hashes), middle, end, out)
                return
            }
            val isUnknown = unused || id == TokenModel.NONE
            if (isUnknown) unknown.add(bytes, start, end, wasUnknown, out) else out.add(id)
            wasUnknown = isUnknown
        }
    }
}
