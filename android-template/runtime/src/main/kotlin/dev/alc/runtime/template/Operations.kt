package dev.alc.runtime.template

import dev.alc.engine.ChatTemplateException
import dev.alc.runtime.template.Values.Undefined
import dev.alc.runtime.template.Values.fail

/** Arguments of a call by position, evaluated; [Absent] for those that were left out. */
internal class Given(private val what: String, private val values: List<Any?>) {
    object Absent

    fun has(index: Int): Boolean = index < values.size && values[index] !== Absent

    operator fun get(index: Int): Any? =
        if (has(index)) values[index] else fail("$what lacks its argument ${index + 1}")

    fun text(index: Int): Text =
        this[index] as? Text ?: fail("$what needs a text as its argument ${index + 1}")
}

/** Functions, methods, filters and tests that templates may use, as Python and Jinja have them. */
internal object Operations {
    private const val MOST_ITEMS = 100_000L

    fun call(function: String, given: Given): Any? = when (function) {
        "raise_exception" -> throw ChatTemplateException(
            "the chat template refuses this conversation: ${given.text(0)}",
        )
        "range" -> {
            val first = Values.number(given[0])
            val start = if (given.has(1)) first else 0
            val stop = if (given.has(1)) Values.number(given[1]) else first
            val step = if (given.has(2)) Values.number(given[2]) else 1
            if (step == 0L) fail("range has the step 0")
            val items = if (step > 0) start until stop step step else start downTo stop + 1 step -step
            if (items.count() > MOST_ITEMS) fail("range has more than $MOST_ITEMS items")
            items.toList()
        }
        else -> fail("unknown function $function")
    }

    fun method(value: Any?, name: String, given: Given): Any? = when (value) {
        is Text -> textMethod(value, name, given)
        is Map<*, *> -> when (name) {
            "get" -> {
                val key = given[0]
                if (key in value) value[key] else if (given.has(1)) given[1] else null
            }
            "items" -> value.entries.map { listOf(it.key, it.value) }
            "keys" -> value.keys.toList()
            "values" -> value.values.toList()
            else -> fail("${Values.kind(value)} has no '$name'")
        }
        else -> fail("${Values.kind(value)} has no '$name'")
    }

    private fun textMethod(value: Text, name: String, given: Given): Any? {
        val letters = if (given.has(0) && given[0] != null) given[0] as? Text else null
        return when (name) {
            "strip" -> strip(value, letters, start = true, end = true)
            "lstrip" -> strip(value, letters, start = true, end = false)
            "rstrip" -> strip(value, letters, start = false, end = true)
            "split" -> split(value, letters, if (given.has(1)) Values.number(given[1]) else -1)
            "startswith" -> value.value.startsWith(given.text(0).value)
            "endswith" -> value.value.endsWith(given.text(0).value)
            "replace" -> replace(
                value,
                given.text(0),
                given.text(1),
                if (given.has(2)) Values.number(given[2]) else -1,
            )
            "upper" -> value.mapped { it.uppercase() }
            "lower" -> value.mapped { it.lowercase() }
            else -> fail("a text has no '$name'")
        }
    }

    fun filter(name: String, value: Any?, given: Given): Any? = when (name) {
        "trim" -> {
            val letters = if (given.has(0)) given.text(0) else null
            strip(Values.text(value), letters, start = true, end = true)
        }
        "length", "count" -> Values.length(value)
        "upper" -> Values.text(value).mapped { it.uppercase() }
        "lower" -> Values.text(value).mapped { it.lowercase() }
        "join" -> Values.join(Values.list(value), if (given.has(0)) Values.text(given[0]) else Text.EMPTY)
        "replace" -> replace(
            Values.text(value),
            given.text(0),
            given.text(1),
            if (given.has(2)) Values.number(given[2]) else -1,
        )
        "default", "d" -> {
            val whenFalse = given.has(1) && Values.truth(given[1])
            if (value === Undefined || (whenFalse && !Values.truth(value))) {
                if (given.has(0)) given[0] else Text.EMPTY
            } else {
                value
            }
        }
        "first" -> Values.list(value).let { if (it.isEmpty()) Undefined else it.first() }
        "last" -> Values.list(value).let { if (it.isEmpty()) Undefined else it.last() }
        "string" -> Values.text(value)
        "list" -> Values.list(value)
        "reverse" -> {
            if (value is Text) {
                Values.join(Values.characters(value).reversed(), Text.EMPTY)
            } else {
                Values.list(value).reversed()
            }
        }
        "items" -> when (value) {
            is Map<*, *> -> value.entries.map { listOf(it.key, it.value) }
            Undefined -> emptyList()
            else -> fail("${Values.kind(value)} has no items")
        }
        "tojson" -> Text.plain(json(value, given))
        else -> fail("unknown filter $name")
    }

    fun test(name: String, value: Any?, given: Given): Boolean = when (name) {
        "defined" -> value !== Undefined
        "undefined" -> value === Undefined
        "none" -> value == null
        "string" -> value is Text
        "mapping" -> value is Map<*, *>
        "sequence", "iterable" -> value is Text || value is List<*> || value is Map<*, *> || value === Undefined
        "number" -> Values.isNumber(value)
        "integer" -> value is Long
        "boolean" -> value is Boolean
        "true" -> value == true
        "false" -> value == false
        "eq", "equalto", "==" -> Values.equal(value, given[0])
        "ne", "!=" -> !Values.equal(value, given[0])
        "in" -> Values.contains(given[0], value)
        "odd" -> Math.floorMod(Values.number(value), 2L) == 1L
        "even" -> Math.floorMod(Values.number(value), 2L) == 0L
        else -> fail("unknown test $name")
    }

    private fun strip(value: Text, letters: Text?, start: Boolean, end: Boolean): Text {
        val points = letters?.value?.codePoints()?.toArray()
        fun gone(point: Int): Boolean = if (points == null) isSpace(point) else point in points
        var from = 0
        var until = value.length
        while (start && from < until) {
            val point = value.value.codePointAt(from)
            if (!gone(point)) break
            from += Character.charCount(point)
        }
        while (end && until > from) {
            val point = value.value.codePointBefore(until)
            if (!gone(point)) break
            until -= Character.charCount(point)
        }
        return value.substring(from, until)
    }

    private fun split(value: Text, separator: Text?, most: Long): List<Text> {
        if (separator == null) return words(value, most)
        if (separator.length == 0) fail("it splits a text at an empty text")
        val parts = mutableListOf<Text>()
        var from = 0
        while (most < 0 || parts.size < most) {
            val at = value.value.indexOf(separator.value, from)
            if (at < 0) break
            parts += value.substring(from, at)
            from = at + separator.length
        }
        parts += value.substring(from, value.length)
        return parts
    }

    private fun words(value: Text, most: Long): List<Text> {
        val parts = mutableListOf<Text>()
        var rest = strip(value, null, start = true, end = false)
        while (rest.length > 0) {
            if (most >= 0 && parts.size >= most) {
                // The remainder keeps its inner white space, but not the one at its end.
                parts += strip(rest, null, start = false, end = true)
                break
            }
            var end = 0
            while (end < rest.length && !isSpace(rest.value.codePointAt(end))) {
                end += Character.charCount(rest.value.codePointAt(end))
            }
            parts += rest.substring(0, end)
            rest = strip(rest.substring(end, rest.length), null, start = true, end = false)
        }
        return parts
    }

    private fun replace(value: Text, old: Text, new: Text, most: Long): Text {
        if (old.length == 0) fail("it replaces an empty text")
        return Values.join(split(value, old, most), new)
    }

    /** `json.dumps(value, ensure_ascii=False)`, which Hugging Face puts in the place of Jinja's. */
    private fun json(value: Any?, given: Given): String {
        if (given.has(0) && given[0] != null) fail("tojson with an indent")
        return when (value) {
            null -> "null"
            is Boolean, is Long -> value.toString()
            is Text -> quoted(value.value)
            is List<*> -> value.joinToString(", ", "[", "]") { json(it, given) }
            is Map<*, *> -> value.entries.joinToString(", ", "{", "}") {
                "${quoted(it.key.toString())}: ${json(it.value, given)}"
            }
            else -> fail("${Values.kind(value)} has no JSON")
        }
    }

    private fun quoted(value: String): String = buildString {
        append('"')
        for (letter in value) {
            when {
                letter == '"' -> append("\\\"")
                letter == '\\' -> append("\\\\")
                letter == '\n' -> append("\\n")
                letter == '\r' -> append("\\r")
                letter == '\t' -> append("\\t")
                letter == '\b' -> append("\\b")
                letter == '\u000c' -> append("\\f")
                letter < ' ' -> append("\\u%04x".format(letter.code))
                else -> append(letter)
            }
        }
        append('"')
    }

    /** What Python's `str.isspace` is true for. */
    private fun isSpace(point: Int): Boolean = when (point) {
        in 0x09..0x0d, in 0x1c..0x20, 0x85, 0xa0, 0x1680, in 0x2000..0x200a -> true
        0x2028, 0x2029, 0x202f, 0x205f, 0x3000 -> true
        else -> false
    }
}
