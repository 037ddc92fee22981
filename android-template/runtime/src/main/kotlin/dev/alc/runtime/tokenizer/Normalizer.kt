package dev.alc.runtime.tokenizer

import dev.alc.engine.ModelIncompatibleException
import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer

/** Changes a text, step by step, before it is split. Immutable. */
internal class Normalizer(data: TokenizerData, name: String) {
    private val steps: List<Step>

    init {
        // SentencePiece's rules leave user-defined symbols alone.
        val kept = if (data.sentencePiece) data.trie(data::isUserDefined) else Trie()
        steps = data.steps.map { (code, payload) ->
            when (code) {
                1 -> CharactersMap(payload)
                2 -> UnicodeForm(payload)
                3 -> PrecompiledMap(payload, kept)
                4 -> Replace(payload)
                5 -> Prepend(payload)
                6 -> Squeeze(payload)
                7 -> Strip(payload)
                else -> throw ModelIncompatibleException("$name has the step of normalization $code")
            }
        }
    }

    /** Whether texts stay as they are. */
    val isIdentity: Boolean
        get() = steps.isEmpty()

    fun apply(text: String, place: Place): String =
        steps.fold(text) { changed, step -> step.apply(changed, place) }

    /** Where a stretch of text stands. */
    enum class Place {
        /** At the start of all text. */
        FIRST,

        /** Behind a special token. */
        BEHIND_TOKEN,

        /** It goes on with a text whose beginning has been encoded already. */
        INSIDE,
    }

    /** One change of a text. */
    fun interface Step {
        fun apply(text: String, place: Place): String
    }

    /** Changes each character by itself. */
    private class CharactersMap(payload: ByteBuffer) : Step {
        private val firsts: IntArray
        private val lasts: IntArray
        private val texts: Array<String>

        init {
            val count = payload.count(12)
            firsts = IntArray(count)
            lasts = IntArray(count)
            texts = Array(count) {
                firsts[it] = payload.getInt()
                lasts[it] = payload.getInt()
                payload.text(payload.count(1))
            }
        }

        override fun apply(text: String, place: Place): String {
            val result = StringBuilder(text.length)
            text.forEachPoint { point ->
                val found = firsts.binarySearch(point)
                val run = if (found < 0) -found - 2 else found
                if (run < 0 || point > lasts[run]) {
                    result.appendCodePoint(point)
                } else {
                    for (unit in texts[run]) {
                        if (unit == ITSELF) result.appendCodePoint(point) else result.append(unit)
                    }
                }
            }
            return result.toString()
        }
    }

    /** SentencePiece's compiled rules: at each place the longest applies, for which see Darts. */
    private class PrecompiledMap(payload: ByteBuffer, private val kept: Trie) : Step {
        private val units: IntArray
        private val texts: ByteArray

        init {
            units = IntArray(payload.count(1) / 4) { payload.getInt() }
            texts = payload.rest()
        }

        override fun apply(text: String, place: Place): String {
            val bytes = text.toByteArray(Charsets.UTF_8)
            val out = ByteArrayOutputStream(bytes.size + 16)
            var at = 0
            var byte = 0
            while (at < text.length) {
                val symbol = kept.longest(text, at, text.length).toInt()
                val rule = if (symbol > 0) 0L else longest(bytes, byte)
                var length = if (symbol > 0) utf8Length(text, at, at + symbol) else rule.toInt()
                if (length > 0 && symbol == 0) {
                    var end = (rule ushr 32).toInt()
                    val start = end
                    while (end < texts.size && texts[end] != 0.toByte()) end++
                    out.write(texts, start, end - start)
                } else {
                    if (length == 0) length = utf8Length(text, at, at + 1)
                    out.write(bytes, byte, length)
                }
                at += units(bytes, byte, byte + length)
                byte += length
            }
            return String(out.toByteArray(), Charsets.UTF_8)
        }

        /** Where the text of the longest rule at [start] begins << 32 | its length, 0 for none. */
        private fun longest(bytes: ByteArray, start: Int): Long {
            var best = 0L
            var node = offset(units[0])
            for (at in start until bytes.size) {
                val label = bytes[at].toInt() and 0xff
                node = node xor label
                if (node >= units.size || units[node] and LABEL != label) break
                val unit = units[node]
                node = node xor offset(unit)
                if (unit and HAS_LEAF != 0 && node < units.size) {
                    best = (units[node] and VALUE).toLong() shl 32 or (at + 1 - start).toLong()
                }
            }
            return best
        }

        private fun offset(unit: Int): Int = (unit ushr 10) shl ((unit and (1 shl 9)) ushr 6)

        private fun utf8Length(text: String, from: Int, until: Int): Int {
            var length = 0
            var at = from
            while (at < until) {
                val point = text.codePointAt(at)
                length += if (point < 0x80) 1 else if (point < 0x800) 2 else if (point < 0x10000) 3 else 4
                at += Character.charCount(point)
            }
            return length
        }

        /** How many UTF-16 units the whole characters `bytes[from, until)` are. */
        private fun units(bytes: ByteArray, from: Int, until: Int): Int {
            var count = 0
            for (at in from until until) {
                val byte = bytes[at].toInt() and 0xff
                if (byte and 0xc0 != 0x80) count += if (byte >= 0xf0) 2 else 1
            }
            return count
        }

        private companion object {
            const val LABEL = 0x800000ff.toInt()
            const val HAS_LEAF = 0x100
            const val VALUE = 0x7fffffff
        }
    }

    private class Replace(payload: ByteBuffer) : Step {
        private val old = payload.text(payload.count(1))
        private val new = payload.text(payload.remaining())

        override fun apply(text: String, place: Place): String = text.replace(old, new)
    }

    private class Prepend(payload: ByteBuffer) : Step {
        private val rules = payload.getInt()
        private val prefix = payload.text(payload.remaining())

        override fun apply(text: String, place: Place): String {
            val wanted = place == Place.FIRST || place == Place.BEHIND_TOKEN && rules and FIRST_ONLY == 0
            val needed = text.isNotEmpty() || rules and EVEN_EMPTY != 0
            val present = rules and UNLESS_PRESENT != 0 && text.startsWith(prefix)
            return if (wanted && needed && !present) prefix + text else text
        }

        private companion object {
            const val EVEN_EMPTY = 1
            const val UNLESS_PRESENT = 2
            const val FIRST_ONLY = 4
        }
    }

    /** Makes one text of each run of two spaces and more. */
    private class Squeeze(payload: ByteBuffer) : Step {
        private val squeezed = payload.text(payload.remaining())

        override fun apply(text: String, place: Place): String {
            if ("  " !in text) return text
            val result = StringBuilder(text.length)
            var at = 0
            while (at < text.length) {
                var end = at
                while (end < text.length && text[end] == ' ') end++
                if (end - at > 1) {
                    result.append(squeezed)
                } else {
                    result.append(text[at])
                    end = at + 1
                }
                at = end
            }
            return result.toString()
        }
    }

    private class Strip(payload: ByteBuffer) : Step {
        private val sides = payload.getInt()
        private val characters = payload.text(payload.remaining())

        override fun apply(text: String, place: Place): String {
            val left = if (sides and LEFT != 0) text.trimStart { it in characters } else text
            return if (sides and RIGHT != 0) left.trimEnd { it in characters } else left
        }

        private companion object {
            const val LEFT = 1
            const val RIGHT = 2
        }
    }

    private companion object {
        /** Stands for the character in what it becomes. */
        const val ITSELF = '\uffff'
    }
}

/** A count that the rest of the buffer can hold, of things of [bytes] bytes at least. */
internal fun ByteBuffer.count(bytes: Int): Int {
    val count = getInt()
    if (count < 0 || count.toLong() * bytes > remaining()) throw NegativeArraySizeException("$count")
    return count
}

internal fun ByteBuffer.text(length: Int): String =
    String(ByteArray(length).also { get(it) }, Charsets.UTF_8)

internal fun ByteBuffer.rest(): ByteArray = ByteArray(remaining()).also { get(it) }

/** Calls [action] with each code point of a text. */
internal inline fun String.forEachPoint(action: (point: Int) -> Unit) {
    var at = 0
    while (at < length) {
        val point = codePointAt(at)
        action(point)
        at += Character.charCount(point)
    }
}
