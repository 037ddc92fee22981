package dev.alc.engine

/**
 * How far a text has come that is to be one JSON object (RFC 8259): a pushdown automaton over the
 * bytes of its UTF-8.
 *
 * It takes the beginnings of the objects that RFC 8259 allows, and nothing else, within bounds
 * that keep an answer from running on without saying anything, and every parser able to read it:
 * - Between two lexemes stands at most one blank (space or tab), or a line feed and an indentation
 *   of up to [INDENTATION] blanks. Before the object the same; behind it nothing.
 * - Objects and arrays nest [DEPTH] deep.
 * - Numbers have at most [DIGITS] digits before the point, as many behind it, and
 *   [EXPONENT_DIGITS] in the exponent, so that all are finite as a double.
 * - Strings are valid UTF-8, and `\u` escapes of surrogates come in pairs.
 *
 * From every state some byte leads on, and some way to the end of the object.
 */
internal class JsonState {
    private var place = Place.START

    /** Of a gap, number or literal: how much has come. Of an escape or character: how much is left. */
    private var run = 0

    /** Whether the string is the name of a member. */
    private var isName = false

    /** The open containers, one bit each, the innermost lowest: set for objects. */
    private var open = 0L
    private var depth = 0

    /** Whether the object is closed. */
    val complete: Boolean
        get() = place == Place.END

    /** Whether the text stands inside a string, between two characters. */
    val inText: Boolean
        get() = place == Place.STRING

    /** Becomes equal to [other]. */
    fun set(other: JsonState) {
        place = other.place
        run = other.run
        isName = other.isName
        open = other.open
        depth = other.depth
    }

    /** Goes on with [byte], or returns false and stays if no JSON object goes on with it here. */
    fun step(byte: Byte): Boolean {
        val char = (byte.toInt() and 0xff).toChar()
        return when (place) {
            Place.START -> (char == '{' && open(char)) || blank(char)
            Place.FIRST_NAME -> name(char) || close(char) || blank(char)
            Place.NAME -> name(char) || blank(char)
            Place.COLON -> (char == ':' && go(Place.VALUE)) || blank(char)
            Place.FIRST_VALUE -> value(char) || close(char) || blank(char)
            Place.VALUE -> value(char) || blank(char)
            Place.AFTER_VALUE -> comma(char) || close(char) || blank(char)
            Place.END -> false
            Place.TRUE -> literal(char, "true")
            Place.FALSE -> literal(char, "false")
            Place.NULL -> literal(char, "null")
            Place.STRING -> string(char)
            Place.ESCAPE -> if (char == 'u') go(Place.UNICODE) else char in "\"\\/bfnrt" && go(Place.STRING)
            Place.UNICODE -> when {
                char == 'd' || char == 'D' -> go(Place.UNICODE_D)
                else -> isHex(char) && go(Place.HEX, 3)
            }
            Place.UNICODE_D -> when (char) {
                in '0'..'7' -> go(Place.HEX, 2)
                '8', '9', 'a', 'b', 'A', 'B' -> go(Place.HIGH_HEX, 2)
                else -> false
            }
            Place.HEX -> isHex(char) && countDown(Place.STRING)
            Place.HIGH_HEX -> isHex(char) && countDown(Place.LOW_ESCAPE)
            Place.LOW_ESCAPE -> char == '\\' && go(Place.LOW_UNICODE)
            Place.LOW_UNICODE -> char == 'u' && go(Place.LOW_FIRST)
            Place.LOW_FIRST -> (char == 'd' || char == 'D') && go(Place.LOW_SECOND)
            Place.LOW_SECOND -> (char in 'c'..'f' || char in 'C'..'F') && go(Place.HEX, 2)
            Place.CONTINUATION -> char in '\u0080'..'\u00bf' && countDown(Place.STRING)
            Place.AFTER_E0 -> char in '\u00a0'..'\u00bf' && go(Place.CONTINUATION, 1)
            Place.AFTER_ED -> char in '\u0080'..'\u009f' && go(Place.CONTINUATION, 1)
            Place.AFTER_F0 -> char in '\u0090'..'\u00bf' && go(Place.CONTINUATION, 2)
            Place.AFTER_F4 -> char in '\u0080'..'\u008f' && go(Place.CONTINUATION, 2)
            Place.MINUS -> integer(char)
            Place.ZERO -> point(char) || exponent(char) || endNumber(char)
            Place.INTEGER -> digit(char, DIGITS) || point(char) || exponent(char) || endNumber(char)
            Place.POINT -> char in '0'..'9' && go(Place.FRACTION, 1)
            Place.FRACTION -> digit(char, DIGITS) || exponent(char) || endNumber(char)
            Place.EXPONENT -> when (char) {
                '+', '-' -> go(Place.EXPONENT_SIGN)
                else -> char in '0'..'9' && go(Place.POWER, 1)
            }
            Place.EXPONENT_SIGN -> char in '0'..'9' && go(Place.POWER, 1)
            Place.POWER -> digit(char, EXPONENT_DIGITS) || endNumber(char)
        }
    }

    /**
     * All that counts for a text that goes on from here, closes at most [closes] containers and
     * opens at most [opens]: equal for states from which the same such texts lead on.
     */
    fun outlook(closes: Int, opens: Int): Outlook {
        // Of the container that then is the innermost the kind counts too.
        val seen = minOf(depth, closes + 1)
        val mask = if (seen == Long.SIZE_BITS) -1L else (1L shl seen) - 1
        return Outlook(place, run, isName, open and mask, seen, minOf(DEPTH - depth, opens))
    }

    override fun toString(): String = "${place.name.lowercase()}, $depth deep"

    private fun go(next: Place, count: Int = 0): Boolean {
        place = next
        run = count
        return true
    }

    private fun countDown(next: Place): Boolean = if (run > 1) go(place, run - 1) else go(next)

    /** White space in a gap of which [before] are used: see [FULL]. */
    private fun blank(char: Char, gap: Place = place, before: Int = run): Boolean = when {
        before == FULL -> false
        char == ' ' || char == '\t' -> go(gap, if (before == 0) FULL else before + 1)
        else -> char == '\n' && before == 0 && go(gap, 1)
    }

    private fun name(char: Char): Boolean {
        if (char != '"') return false
        isName = true
        return go(Place.STRING)
    }

    private fun value(char: Char): Boolean = when (char) {
        '"' -> {
            isName = false
            go(Place.STRING)
        }
        '{', '[' -> open(char)
        't' -> go(Place.TRUE, 1)
        'f' -> go(Place.FALSE, 1)
        'n' -> go(Place.NULL, 1)
        '-' -> go(Place.MINUS)
        else -> integer(char)
    }

    private fun open(char: Char): Boolean {
        if (depth == DEPTH) return false
        depth++
        open = open shl 1 or (if (char == '{') 1 else 0)
        return go(if (char == '{') Place.FIRST_NAME else Place.FIRST_VALUE)
    }

    private fun close(char: Char): Boolean {
        if (char != (if (inObject()) '}' else ']')) return false
        depth--
        open = open ushr 1
        return go(if (depth == 0) Place.END else Place.AFTER_VALUE)
    }

    private fun comma(char: Char): Boolean = char == ',' && go(if (inObject()) Place.NAME else Place.VALUE)

    private fun inObject(): Boolean = open and 1L != 0L

    private fun literal(char: Char, word: String): Boolean = when {
        char != word[run] -> false
        run == word.lastIndex -> go(Place.AFTER_VALUE)
        else -> go(place, run + 1)
    }

    private fun string(char: Char): Boolean = when (char) {
        '"' -> go(if (isName) Place.COLON else Place.AFTER_VALUE)
        '\\' -> go(Place.ESCAPE)
        in ' '..'\u007f' -> true
        in '\u00c2'..'\u00df' -> go(Place.CONTINUATION, 1)
        '\u00e0' -> go(Place.AFTER_E0)
        '\u00ed' -> go(Place.AFTER_ED)
        in '\u00e1'..'\u00ef' -> go(Place.CONTINUATION, 2)
        '\u00f0' -> go(Place.AFTER_F0)
        in '\u00f1'..'\u00f3' -> go(Place.CONTINUATION, 3)
        '\u00f4' -> go(Place.AFTER_F4)
        else -> false
    }

    private fun integer(char: Char): Boolean =
        if (char == '0') go(Place.ZERO) else char in '1'..'9' && go(Place.INTEGER, 1)

    private fun digit(char: Char, most: Int): Boolean = char in '0'..'9' && run < most && go(place, run + 1)

    private fun point(char: Char): Boolean = char == '.' && go(Place.POINT)

    private fun exponent(char: Char): Boolean = (char == 'e' || char == 'E') && go(Place.EXPONENT)

    private fun endNumber(char: Char): Boolean =
        comma(char) || close(char) || blank(char, Place.AFTER_VALUE, before = 0)

    private fun isHex(char: Char): Boolean = char in '0'..'9' || char in 'a'..'f' || char in 'A'..'F'

    /** What [outlook] returns. */
    data class Outlook(
        private val place: Place,
        private val run: Int,
        private val isName: Boolean,
        private val open: Long,
        private val depth: Int,
        private val room: Int,
    )

    /** What may come next, the containers aside. */
    enum class Place {
        START, FIRST_NAME, NAME, COLON, FIRST_VALUE, VALUE, AFTER_VALUE, END,
        TRUE, FALSE, NULL,
        STRING, ESCAPE, UNICODE, UNICODE_D, HEX, HIGH_HEX, LOW_ESCAPE, LOW_UNICODE, LOW_FIRST, LOW_SECOND,
        CONTINUATION, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4,
        MINUS, ZERO, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, POWER,
    }

    companion object {
        const val DEPTH = 64
        const val INDENTATION = 32
        const val DIGITS = 20
        const val EXPONENT_DIGITS = 2

        /** The run of a gap that takes no more: one blank, or a line feed (1) and all its blanks. */
        private const val FULL = 1 + INDENTATION

        /** Whether [bytes] are whole characters of a string, escapes among them, and nothing else. */
        fun isText(bytes: ByteArray): Boolean {
            val state = JsonState()
            state.place = Place.STRING
            return bytes.all { it != QUOTE && state.step(it) } && state.inText
        }

        private const val QUOTE = '"'.code.toByte()
    }
}
