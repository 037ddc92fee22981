package dev.alc.runtime.tokenizer

import kotlin.math.abs

/**
 * The most probable sequence of tokens (Kudo 2018), by Viterbi's algorithm: at each place the best
 * way to get there is kept, of equal ones the first that is found. Sums are rounded as the
 * reference rounds them, on which the choice between equally long ways depends.
 */
internal class UnigramModel(private val data: TokenizerData) : TokenModel {
    private val tokens = data.trie { data.isNormal(it) || data.isUserDefined(it) }
    private val unknown = UnknownCharacters(data)

    override fun encoder(): PieceEncoder {
        var scores = DoubleArray(0)
        var starts = IntArray(0)
        var ids = IntArray(0)
        return PieceEncoder { text, from, until, out ->
            val size = until - from
            if (scores.size <= size) {
                scores = DoubleArray(2 * size + 1)
                starts = IntArray(2 * size + 1)
                ids = IntArray(2 * size + 1)
            }
            starts.fill(TokenModel.NONE, 0, size + 1)
            scores[0] = 0.0

            fun offer(start: Int, end: Int, id: Int, score: Double) {
                val exact = score + scores[start]
                val sum = if (data.sentencePiece) exact.toFloat().toDouble() else exact
                if (starts[end] != TokenModel.NONE && sum <= scores[end]) return
                scores[end] = sum
                starts[end] = start
                ids[end] = id
            }
            var at = 0
            var frontier = 0
            while (at < size) {
                // Long sums leave single precision no room for differences: SentencePiece starts
                // again from zero.
                val reached = scores[at]
                if (data.sentencePiece && abs(reached) > LARGE_SUM) {
                    for (end in at..frontier) {
                        scores[end] = (scores[end] - reached).toFloat().toDouble()
                    }
                }
                val width = Character.charCount(text.codePointAt(from + at))
                var single = false
                var node = 0
                for (end in at + 1..size) {
                    node = tokens.child(node, text[from + end - 1])
                    if (node == Trie.NONE) break
                    val id = tokens.value(node)
                    if (id == Trie.NONE) continue
                    offer(at, end, id, data.scores[id])
                    frontier = maxOf(frontier, end)
                    if (end - at == width) single = true
                }
                if (!single) {
                    offer(at, at + width, TokenModel.NONE, data.scores[data.unknown])
                    frontier = maxOf(frontier, at + width)
                }
                at += width
            }
            // The way back, turned around in place: starts become ends.
            var end = size
            var next = TokenModel.NONE
            while (end > 0) {
                val start = starts[end]
                starts[end] = next
                next = end
                end = start
            }
            add(text, from, next, starts, ids, out)
        }
    }

    /** Adds the tokens of the way that begins with the one that ends at [first]. */
    private fun add(
        text: String,
        from: Int,
        first: Int,
        following: IntArray,
        ids: IntArray,
        out: IntList,
    ) {
        val bytes = ByteArray(4)
        var start = 0
        var end = first
        var wasUnknown = false
        while (end != TokenModel.NONE) {
            val isUnknown = ids[end] == TokenModel.NONE
            if (isUnknown) {
                val length = Utf8.put(text.codePointAt(from + start), bytes, 0)
                unknown.add(bytes, 0, length, wasUnknown, out)
            } else {
                out.add(ids[end])
            }
            wasUnknown = isUnknown
            start = end
            end = following[end]
        }
    }

    private companion object {
        /** kScoreResetThreshold in SentencePiece's src/unigram_model.cc. */
        const val LARGE_SUM = 100_000.0
    }
}
