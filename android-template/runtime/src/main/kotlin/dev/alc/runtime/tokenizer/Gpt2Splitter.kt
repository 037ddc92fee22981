package dev.alc.runtime.tokenizer

/**
 * Cuts a text into the pieces inside which merges happen. Isolated characters are pieces of their
 * own; between them GPT-2's pattern applies, whose alternatives are tried in this order:
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * Written out by hand, because it then takes linear time and the same classes everywhere.
 */
internal class Gpt2Splitter(private val classes: CharClasses) {
    /** Calls [piece] with the bounds of each piece of `text[from, until)`, which has no gaps. */
    inline fun split(text: String, from: Int, until: Int, piece: (start: Int, end: Int) -> Unit) {
        var at = from
        while (at < until) {
            var end = at
            while (end < until && !isolated(text, end)) end += width(text, end)
            while (at < end) {
                val next = match(text, at, end)
                piece(at, next)
                at = next
            }
            if (end < until) {
                at = end + width(text, end)
                piece(end, at)
            }
        }
    }

    /** Where the match that begins at [start] ends. */
    fun match(text: String, start: Int, until: Int): Int {
        if (text[start] == '\'') {
            val length = contraction(text, start + 1, until)
            if (length > 0) return start + 1 + length
        }
        val first = kind(text, start)
        if (first != CharClasses.SPACE) return run(text, start, until, first)
        if (text[start] == ' ' && start + 1 < until) {
            val second = kind(text, start + 1)
            if (second != CharClasses.SPACE) return run(text, start + 1, until, second)
        }
        val end = run(text, start, until, CharClasses.SPACE)
        // White space leaves its last character to what follows it, unless it is the only one.
        val last = if (end < until) end - 1 else end
        return if (last > start) last else end
    }

    fun isolated(text: String, at: Int): Boolean =
        classes.of(pointAt(text, at)) and CharClasses.ISOLATED != 0

    fun width(text: String, at: Int): Int =
        if (text[at].isHighSurrogate() && at + 1 < text.length && text[at + 1].isLowSurrogate()) 2 else 1

    private fun run(text: String, start: Int, until: Int, kind: Int): Int {
        var at = start
        while (at < until && kind(text, at) == kind) at += width(text, at)
        return at
    }

    private fun kind(text: String, at: Int): Int =
        classes.of(pointAt(text, at)) and CharClasses.KIND

    private fun contraction(text: String, at: Int, until: Int): Int = when {
        at >= until -> 0
        text[at] in "stmd" -> 1
        at + 1 >= until -> 0
        text[at] == 'r' && text[at + 1] == 'e' -> 2
        text[at] == 'v' && text[at + 1] == 'e' -> 2
        text[at] == 'l' && text[at + 1] == 'l' -> 2
        else -> 0
    }

    private fun pointAt(text: String, at: Int): Int {
        val unit = text[at]
        if (!unit.isSurrogate()) return unit.code
        if (width(text, at) == 2) return Character.toCodePoint(unit, text[at + 1])
        return REPLACEMENT
    }

    companion object {
        /** What an unpaired surrogate counts as. */
        const val REPLACEMENT = 0xfffd
    }
}
