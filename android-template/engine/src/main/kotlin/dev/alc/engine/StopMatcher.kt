package dev.alc.engine

/**
 * Finds the first of several texts in a text that comes in pieces, and holds back what may turn out
 * to be the beginning of one: at most as many letters as the longest has, less one.
 *
 * The first is the one that is complete first, and of several that end with the same letter the
 * longest, so where the pieces begin and end makes no difference. Takes linear time (Knuth, Morris
 * and Pratt, "Fast Pattern Matching in Strings", 1977) for each of the texts.
 */
internal class StopMatcher(stops: List<String>) {
    private val patterns = stops.map(::Pattern)
    private val held = StringBuilder()

    /** Whether a stop has come; nothing is given out after that. */
    var found: Boolean = false
        private set

    /** What of the text so far and [piece] can be given out now. */
    fun add(piece: String): String {
        if (found) return ""
        for (index in piece.indices) {
            held.append(piece[index])
            val stop = longestEndingWith(piece[index])
            if (stop > 0) {
                found = true
                held.setLength(held.length - stop)
                return rest()
            }
        }
        val certain = held.length - patterns.maxOf { it.matched }
        return held.substring(0, certain).also { held.delete(0, certain) }
    }

    /** What was held back, when the text ends. */
    fun rest(): String = held.toString().also { held.setLength(0) }

    private fun longestEndingWith(letter: Char): Int {
        var longest = 0
        for (pattern in patterns) if (pattern.advance(letter)) longest = maxOf(longest, pattern.length)
        return longest
    }

    private class Pattern(private val text: String) {
        // border[n]: the longest beginning of the text, shorter than n, that its first n letters end with.
        private val border = IntArray(text.length + 1)
        var matched = 0
            private set
        val length: Int
            get() = text.length

        init {
            var shorter = 0
            for (end in 1 until text.length) {
                while (shorter > 0 && text[end] != text[shorter]) shorter = border[shorter]
                if (text[end] == text[shorter]) shorter++
                border[end + 1] = shorter
            }
        }

        /** Whether the pattern is complete with [letter]. */
        fun advance(letter: Char): Boolean {
            while (matched > 0 && text[matched] != letter) matched = border[matched]
            if (text[matched] == letter) matched++
            return matched == text.length
        }
    }
}
