package dev.alc.runtime.template

/** Methods of Python's `str`. */
internal object Strings {
    /** `strip()`, `lstrip()`, `rstrip()`: white space, or the characters of [chars]. */
    fun strip(text: Text, chars: Text?, left: Boolean = true, right: Boolean = true): Text {
        val set = chars?.let { all -> (0 until all.length).mapTo(HashSet()) { all[it] } }
        fun drops(index: Int) = if (set == null) isSpace(text[index]) else text[index] in set
        var from = 0
        var until = text.length
        if (left) while (from < until && drops(from)) from++
        if (right) while (until > from && drops(until - 1)) until--
        return text.slice(from, until)
    }

    /** `split()`: at runs of white space, or at each [separator]; [most] times if not negative. */
    fun split(text: Text, separator: Text?, most: Long): List<Text> {
        if (separator == null) return splitAtSpace(text, most)
        if (separator.length == 0) fail("empty separator")
        val parts = mutableListOf<Text>()
        var from = 0
        while (most < 0 || parts.size < most) {
            val at = text.indexOf(separator, from)
            if (at < 0) break
            parts += text.slice(from, at)
            from = at + separator.length
        }
        parts += text.slice(from, text.length)
        return parts
    }

    private fun splitAtSpace(text: Text, most: Long): List<Text> {
        val parts = mutableListOf<Text>()
        var at = 0
        while (true) {
            while (at < text.length && isSpace(text[at])) at++
            if (at == text.length) return parts
            val from = at
            if (most >= 0 && parts.size >= most) at = text.length
            while (at < text.length && !isSpace(text[at])) at++
            parts += text.slice(from, at)
        }
    }

    /** `replace()`; an empty [old] stands before each character and at the end. */
    fun replace(text: Text, old: Text, new: Text, count: Long): Text {
        val result = TextBuilder()
        var from = 0
        var done = 0L
        while (count < 0 || done < count) {
            // An empty `old` was found at `from` already, so the next one is a character further.
            val start = if (old.length == 0 && done > 0) from + 1 else from
            val at = if (start > text.length) -1 else text.indexOf(old, start)
            if (at < 0) break
            result.add(text, from, at).add(new)
            from = at + old.length
            done++
        }
        return result.add(text, from, text.length).build()
    }

    fun upper(text: Text): Text = mapCase(text, String::uppercase)

    fun lower(text: Text): Text = mapCase(text, String::lowercase)

    /**
     * [convert] of the whole text, because a letter may depend on its neighbours (the final
     * sigma does), with each letter's mark on what it alone becomes.
     */
    private fun mapCase(text: Text, convert: (String) -> String): Text {
        val letters = TextBuilder()
        for (index in 0 until text.length) {
            letters.add(convert(String(Character.toChars(text[index]))), text.isMarkup(index))
        }
        val marks = letters.build()
        val points = convert(text.toString()).codePoints().toArray()
        val aligned = points.size == marks.length
        return Text(points, BooleanArray(points.size) { aligned && marks.isMarkup(it) })
    }

    /** `str.isspace()` of one character. */
    private fun isSpace(point: Int): Boolean = when (point) {
        in 0x09..0x0D, in 0x1C..0x20, 0x85, 0xA0, 0x1680, in 0x2000..0x200A -> true
        0x2028, 0x2029, 0x202F, 0x205F, 0x3000 -> true
        else -> false
    }
}
