package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.RandomSource
import io.kotest.property.arbitrary.arbitrary
import java.util.regex.Pattern
import kotlin.random.Random

/** What a text is to someone who waits for one JSON object. */
enum class Verdict { WHOLE, BEGINNING, REFUSED }

/**
 * The same language as [JsonState]'s, said in another way: regular expressions for the lexemes and
 * recursion for what nests. A byte is a char here.
 */
class JsonText private constructor(private val text: String) {
    private var at = 0
    private var depth = 0

    /** The text ends inside the object. */
    private class Ends : Exception()

    /** No object begins so. */
    private class Wrong : Exception()

    private fun judge(): Verdict = try {
        lexeme(GAP)
        if (peek() != '{') throw Wrong()
        container()
        if (at == text.length) Verdict.WHOLE else Verdict.REFUSED
    } catch (_: Ends) {
        Verdict.BEGINNING
    } catch (_: Wrong) {
        Verdict.REFUSED
    }

    private fun peek(): Char = if (at < text.length) text[at] else throw Ends()

    private fun lexeme(pattern: Pattern) {
        val matcher = pattern.matcher(text).region(at, text.length)
        val found = matcher.lookingAt()
        if (matcher.hitEnd()) throw Ends()
        if (!found) throw Wrong()
        at = matcher.end()
    }

    private fun container() {
        if (++depth > JsonState.DEPTH) throw Wrong()
        val isObject = text[at++] == '{'
        val end = if (isObject) '}' else ']'
        lexeme(GAP)
        if (peek() != end) {
            while (true) {
                if (isObject) {
                    lexeme(STRING)
                    lexeme(GAP)
                    if (peek() != ':') throw Wrong()
                    at++
                    lexeme(GAP)
                }
                when (peek()) {
                    '"' -> lexeme(STRING)
                    '{', '[' -> container()
                    in 'a'..'z' -> lexeme(LITERAL)
                    else -> lexeme(NUMBER)
                }
                lexeme(GAP)
                if (peek() == end) break
                if (peek() != ',') throw Wrong()
                at++
                lexeme(GAP)
            }
        }
        at++
        depth--
    }

    companion object {
        private val GAP = Pattern.compile("\n[ \t]{0,32}|[ \t]?")
        private val LITERAL = Pattern.compile("true|false|null")
        private val NUMBER =
            Pattern.compile("-?(?:0|[1-9][0-9]{0,19})(?:\\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?")
        private val STRING = Pattern.compile(
            listOf(
                "[ !#-\\[\\]-\\x7f]",
                "[\\xc2-\\xdf]T", "\\xe0[\\xa0-\\xbf]T", "[\\xe1-\\xec\\xee\\xef]TT", "\\xed[\\x80-\\x9f]T",
                "\\xf0[\\x90-\\xbf]TT", "[\\xf1-\\xf3]TTT", "\\xf4[\\x80-\\x8f]TT",
                "\\\\[\"\\\\/bfnrt]",
                "\\\\u[0-9a-cA-CefEF]HHH", "\\\\u[dD][0-7]HH", "\\\\u[dD][89abAB]HH\\\\u[dD][c-fC-F]HH",
            ).joinToString("|", "\"(?:", ")*\"")
                .replace("T", "[\\x80-\\xbf]").replace("H", "[0-9a-fA-F]"),
        )

        fun judge(bytes: ByteArray): Verdict = JsonText(String(bytes, Charsets.ISO_8859_1)).judge()

        /** The characters before and behind which UTF-8 changes its form. */
        private val BORDERS = listOf(0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff)

        /** Objects with everything that JSON has, short. */
        val objects: Arb<ByteArray> = arbitrary { source: RandomSource ->
            Writer(source.random).text().toByteArray()
        }
    }

    private class Writer(private val random: Random) {
        private val out = StringBuilder()

        fun text(): String {
            gap()
            container('{', '}', 3)
            return out.toString()
        }

        private fun gap() {
            when (random.nextInt(6)) {
                0 -> out.append(" \t".random(random))
                1 -> out.append('\n').append(" ".repeat(random.nextInt(JsonState.INDENTATION + 1)))
            }
        }

        private fun container(begin: Char, end: Char, levels: Int) {
            out.append(begin)
            gap()
            repeat(random.nextInt(4)) { index ->
                if (index > 0) {
                    out.append(',')
                    gap()
                }
                if (begin == '{') {
                    string()
                    gap()
                    out.append(':')
                    gap()
                }
                value(levels)
                gap()
            }
            out.append(end)
        }

        private fun value(levels: Int) {
            when (random.nextInt(if (levels > 0) 7 else 4)) {
                0 -> out.append(listOf("true", "false", "null").random(random))
                1, 2 -> number()
                3 -> string()
                4, 5 -> container('{', '}', levels - 1)
                6 -> container('[', ']', levels - 1)
            }
        }

        private fun number() {
            if (random.nextInt(3) == 0) out.append('-')
            if (random.nextBoolean()) out.append('0') else digits('1', JsonState.DIGITS)
            if (random.nextBoolean()) {
                out.append('.')
                digits('0', JsonState.DIGITS)
            }
            if (random.nextBoolean()) {
                out.append("eE".random(random)).append(listOf("", "+", "-").random(random))
                digits('0', JsonState.EXPONENT_DIGITS)
            }
        }

        private fun digits(least: Char, most: Int) {
            out.append((least..'9').random(random))
            repeat(random.nextInt(most)) { out.append(('0'..'9').random(random)) }
        }

        private fun string() {
            out.append('"')
            repeat(random.nextInt(5)) {
                when (random.nextInt(5)) {
                    0 -> out.append('\\').append("\"\\/bfnrt".random(random))
                    1 -> escaped(random.nextInt(0xd800))
                    2 -> escaped(0xe000 + random.nextInt(0x102000))
                    3 -> out.append("a}]{[,: \u007f".random(random))
                    4 -> out.appendCodePoint(BORDERS.random(random))
                }
            }
            out.append('"')
        }

        private fun escaped(point: Int) {
            for (unit in Character.toChars(point)) {
                out.append("\\u").append(unit.code.toString(16).padStart(4, '0').anyCase())
            }
        }

        private fun String.anyCase(): String =
            map { if (random.nextBoolean()) it.uppercaseChar() else it }.joinToString("")
    }
}
