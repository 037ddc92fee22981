package dev.alc.runtime.tokenizer

import dev.alc.engine.MarkedText

/**
 * Finds the tokens that are recognized as a whole before any splitting: control tokens where the
 * text is markup, user-defined ones everywhere. At one place the longest wins.
 */
internal class SpecialTokens(data: TokenizerData) {
    private class Entry(val text: String, val id: Int, val control: Boolean)

    private val byFirst: Map<Char, List<Entry>> = (0 until data.size)
        .filter { (data.isControl(it) || data.isUserDefined(it)) && data.length(it) > 0 }
        .map { Entry(String(data.bytes(it), Charsets.UTF_8), it, data.isControl(it)) }
        .groupBy { it.text[0] }
        .mapValues { (_, entries) -> entries.sortedByDescending { it.text.length } }

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
            val length = find(text, at, markupEnd)
            if (length == 0) {
                at++
                continue
            }
            if (from < at) plain(from, at)
            special(idAt(text, at, length))
            at += length
            from = at
        }
        if (from < text.length) plain(from, text.length)
    }

    /** The length of the longest token at [at], 0 if none; control tokens end by [markupEnd]. */
    fun find(text: String, at: Int, markupEnd: Int): Int {
        val entries = byFirst[text[at]] ?: return 0
        return entries.firstOrNull { entry ->
            (!entry.control || at + entry.text.length <= markupEnd) && text.startsWith(entry.text, at)
        }?.text?.length ?: 0
    }

    fun idAt(text: String, at: Int, length: Int): Int = byFirst.getValue(text[at])
        .first { it.text.length == length && text.startsWith(it.text, at) }.id
}
