package dev.alc.runtime.tokenizer

/** Cuts a text into the pieces that the model sees one at a time. */
internal abstract class Splitter {
    /** Calls [piece] with the bounds of each piece of `text[from, until)`, in order. */
    abstract fun split(text: String, from: Int, until: Int, piece: (start: Int, end: Int) -> Unit)

    companion object {
        /** The splitter that [data] asks for. */
        fun of(data: TokenizerData): Splitter = when (data.splitter) {
            TokenizerData.SPLITTER_NONE -> Whole
            TokenizerData.SPLITTER_GPT2 -> Gpt2Splitter(CharClasses(data.runs))
            TokenizerData.SPLITTER_LLAMA3 -> Llama3Splitter(CharClasses(data.runs), digits = 3)
            TokenizerData.SPLITTER_QWEN2 -> Llama3Splitter(CharClasses(data.runs), digits = 1)
            TokenizerData.SPLITTER_WORDS -> Words
            else -> BertSplitter(CharClasses(data.runs))
        }
    }

    private object Whole : Splitter() {
        override fun split(text: String, from: Int, until: Int, piece: (Int, Int) -> Unit) =
            piece(from, until)
    }

    /** A piece begins at each stand-in for a space. */
    private object Words : Splitter() {
        override fun split(text: String, from: Int, until: Int, piece: (Int, Int) -> Unit) {
            var start = from
            for (at in from + 1 until until) {
                if (text[at] != '\u2581') continue
                piece(start, at)
                start = at
            }
            if (start < until) piece(start, until)
        }
    }
}

/** Words, and each punctuation mark by itself; white space is left out. */
internal class BertSplitter(private val classes: CharClasses) : Splitter() {
    override fun split(text: String, from: Int, until: Int, piece: (Int, Int) -> Unit) {
        var start = from
        var at = from
        while (at < until) {
            val point = text.codePointAt(at)
            val kind = classes.of(point)
            val end = at + Character.charCount(point)
            if (kind != CharClasses.OTHER) {
                if (start < at) piece(start, at)
                if (kind and CharClasses.ISOLATED != 0) piece(at, end)
                start = end
            }
            at = end
        }
        if (start < until) piece(start, until)
    }
}

/** A splitter that finds one piece after the other, without gaps. */
internal abstract class PatternSplitter(private val classes: CharClasses) : Splitter() {
    /** Where the piece that begins at [start] ends. */
    abstract fun match(text: String, start: Int, until: Int): Int

    override fun split(text: String, from: Int, until: Int, piece: (Int, Int) -> Unit) {
        var at = from
        while (at < until) {
            val end = match(text, at, until)
            piece(at, end)
            at = end
        }
    }

    /** Where the characters of the class [kind] from [start] on end, after [most] at the latest. */
    protected fun run(text: String, start: Int, until: Int, kind: Int, most: Int = Int.MAX_VALUE): Int {
        var at = start
        var left = most
        while (at < until && left-- > 0 && kind(text, at) == kind) at += width(text, at)
        return at
    }

    protected fun kind(text: String, at: Int): Int =
        classes.of(text.codePointAt(at)) and CharClasses.KIND

    protected fun isolated(text: String, at: Int): Boolean =
        classes.of(text.codePointAt(at)) and CharClasses.ISOLATED != 0

    protected fun width(text: String, at: Int): Int = Character.charCount(text.codePointAt(at))

    /** White space leaves its last character to what follows it, unless it is the only one. */
    protected fun space(start: Int, end: Int, until: Int): Int {
        val last = if (end < until) end - 1 else end
        return if (last > start) last else end
    }

    /** How many characters of an English contraction follow the apostrophe before [at]. */
    protected fun contraction(text: String, at: Int, until: Int, letter: (Char) -> Char): Int {
        if (at >= until) return 0
        val first = letter(text[at])
        if (first in "stmd") return 1
        if (at + 1 >= until) return 0
        val second = letter(text[at + 1])
        val known = (first == 'r' || first == 'v') && second == 'e' || first == 'l' && second == 'l'
        return if (known) 2 else 0
    }
}

/**
 * Isolated characters are pieces of their own; between them GPT-2's pattern applies, whose
 * alternatives are tried in this order:
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * Written out by hand, because it then takes linear time and the same classes everywhere.
 */
internal class Gpt2Splitter(classes: CharClasses) : PatternSplitter(classes) {
    override fun split(text: String, from: Int, until: Int, piece: (Int, Int) -> Unit) {
        var at = from
        while (at < until) {
            var end = at
            while (end < until && !isolated(text, end)) end += width(text, end)
            super.split(text, at, end, piece)
            at = end
            if (end < until) {
                at = end + width(text, end)
                piece(end, at)
            }
        }
    }

    override fun match(text: String, start: Int, until: Int): Int {
        if (text[start] == '\'') {
            val length = contraction(text, start + 1, until) { it }
            if (length > 0) return start + 1 + length
        }
        val first = kind(text, start)
        if (first != CharClasses.SPACE) return run(text, start, until, first)
        if (text[start] == ' ' && start + 1 < until) {
            val second = kind(text, start + 1)
            if (second != CharClasses.SPACE) return run(text, start + 1, until, second)
        }
        return space(start, run(text, start, until, CharClasses.SPACE), until)
    }
}

/**
 * Llama 3's pattern, and with single [digits] Qwen 2's, whose alternatives are tried in this order:
 *
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
 *     |\s*[\r\n]+|\s+(?!\S)|\s+
 */
internal class Llama3Splitter(classes: CharClasses, private val digits: Int) :
    PatternSplitter(classes) {
    override fun match(text: String, start: Int, until: Int): Int {
        if (text[start] == '\'') {
            val length = contraction(text, start + 1, until, ::folded)
            if (length > 0) return start + 1 + length
        }
        val first = kind(text, start)
        if (first == CharClasses.LETTER) return run(text, start, until, first)
        if (first == CharClasses.NUMBER) return run(text, start, until, first, digits)
        val second = start + width(text, start)
        if (!isNewline(text[start]) && second < until && kind(text, second) == CharClasses.LETTER) {
            return run(text, second, until, CharClasses.LETTER)
        }
        val other = if (text[start] == ' ' && second < until) second else start
        if (kind(text, other) == CharClasses.OTHER) {
            var end = run(text, other, until, CharClasses.OTHER)
            while (end < until && isNewline(text[end])) end++
            return end
        }
        val end = run(text, start, until, CharClasses.SPACE)
        for (at in end - 1 downTo start) if (isNewline(text[at])) return at + 1
        return space(start, end, until)
    }

    private fun isNewline(unit: Char): Boolean = unit == '\n' || unit == '\r'

    /** The letter that [unit] is without regard to case: U+017F is an s. */
    private fun folded(unit: Char): Char = when (unit) {
        in 'A'..'Z' -> unit + ('a' - 'A')
        '\u017f' -> 's'
        else -> unit
    }
}
