package dev.alc.runtime.tokenizer

import dev.alc.engine.MarkedText

/**
 * Finds the tokens that are recognized as a whole before any splitting: control tokens where the
 * text is markup, user-defined ones everywhere. At one place the longest wins.
 */
internal class SpecialTokens(private val data: TokenizerData) {
    // SentencePiece finds user-defined symbols later, in the normalized text.
    private val tokens =
        data.trie { data.isControl(it) || data.isUserDefined(it) && !data.sentencePiece }

    /** Calls [plain] with the bounds of ordinary text and [special] with tokens, in order. */
    inline fun scan(
        marked: MarkedText,
        plain: (start: Int, end: Int) -> Unit,
        special: (id: Int) -> Unit,
    ) {
        val text = marked.text
        var from = 0
        var at = 0
        var range = 0
        while (at < text.length) {
            while (range < marked.markup.size && marked.markup[range].last < at) range++
            val inside = range < marked.markup.size && at >= marked.markup[range].first
            val markupEnd = if (inside) marked.markup[range].last + 1 else at
            val found = find(text, at, markupEnd)
            if (found == 0L) {
                at++
                continue
            }
            if (from < at) plain(from, at)
            special((found ushr 32).toInt())
            at += found.toInt()
            from = at
        }
        if (from < text.length) plain(from, text.length)
    }

    /** The longest token at [at] << 32 | its length; control tokens end by [markupEnd]. */
    fun find(text: String, at: Int, markupEnd: Int): Long =
        tokens.longest(text, at, text.length) { id, length ->
            !data.isControl(id) || at + length <= markupEnd
        }
}
