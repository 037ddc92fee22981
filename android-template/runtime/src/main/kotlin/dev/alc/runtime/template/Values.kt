package dev.alc.runtime.template

import dev.alc.engine.ChatTemplateException

/**
 * Values of a template: null for None, Boolean, Long, [Text], List, Map with [Text] keys,
 * [Namespace], [Loop] and [Undefined]. The functions here do with them what Python does.
 */
internal object Values {
    /** What a name, key or attribute that is not there gives; Jinja's lenient kind. */
    object Undefined

    /** Jinja's `namespace(...)`: fields that may be set from inside a loop. */
    class Namespace(val fields: MutableMap<String, Any?>)

    /** Jinja's `loop`. */
    class Loop(private val items: List<Any?>, private val index: Int) {
        fun attribute(name: String): Any? = when (name) {
            "index" -> index + 1L
            "index0" -> index.toLong()
            "revindex" -> (items.size - index).toLong()
            "revindex0" -> items.size - index - 1L
            "first" -> index == 0
            "last" -> index == items.lastIndex
            "length" -> items.size.toLong()
            "previtem" -> if (index > 0) items[index - 1] else Undefined
            "nextitem" -> if (index < items.lastIndex) items[index + 1] else Undefined
            else -> Undefined
        }
    }

    fun truth(value: Any?): Boolean = when (value) {
        null, Undefined -> false
        is Boolean -> value
        is Long -> value != 0L
        is Text -> value.length > 0
        is Collection<*> -> value.isNotEmpty()
        is Map<*, *> -> value.isNotEmpty()
        else -> true
    }

    /** What printing [value] gives. */
    fun text(value: Any?): Text = when (value) {
        is Text -> value
        Undefined -> Text.EMPTY
        null -> Text.markup("None")
        true -> Text.markup("True")
        false -> Text.markup("False")
        is Long -> Text.markup(value.toString())
        else -> fail("it prints ${kind(value)}")
    }

    fun list(value: Any?): List<Any?> = when (value) {
        is List<*> -> value
        is Map<*, *> -> value.keys.toList()
        is Text -> characters(value)
        Undefined -> emptyList()
        else -> fail("it goes through ${kind(value)}")
    }

    fun attribute(value: Any?, name: String): Any? = when (value) {
        is Loop -> value.attribute(name)
        is Namespace -> if (name in value.fields) value.fields[name] else Undefined
        else -> item(value, Text.plain(name))
    }

    fun item(value: Any?, key: Any?): Any? = when {
        value === Undefined -> fail("it looks for ${describe(key)} in something undefined")
        value is Map<*, *> -> if (key in value) value[key] else Undefined
        value is List<*> && isNumber(key) -> at(value, number(key))
        value is Text && isNumber(key) -> at(characters(value), number(key))
        else -> Undefined
    }

    private fun at(items: List<Any?>, index: Long): Any? {
        val from = if (index < 0) index + items.size else index
        return if (from in items.indices) items[from.toInt()] else Undefined
    }

    fun slice(value: Any?, start: Any?, stop: Any?, step: Any?): Any? {
        val items = when (value) {
            is List<*> -> value
            is Text -> characters(value)
            else -> fail("it slices ${kind(value)}")
        }
        val by = if (step == null) 1L else number(step)
        if (by == 0L) fail("it slices in steps of 0")
        // Python's rules: bounds outside the sequence move to its ends.
        fun bound(given: Any?, low: Long, high: Long, default: Long): Long {
            if (given == null) return default
            val at = number(given)
            return (if (at < 0) at + items.size else at).coerceIn(low, high)
        }
        val size = items.size.toLong()
        val kept = mutableListOf<Any?>()
        if (by > 0) {
            var at = bound(start, 0, size, 0)
            val end = bound(stop, 0, size, size)
            while (at < end) {
                kept += items[at.toInt()]
                at += by
            }
        } else {
            var at = bound(start, -1, size - 1, size - 1)
            val end = bound(stop, -1, size - 1, -1)
            while (at > end) {
                kept += items[at.toInt()]
                at += by
            }
        }
        return if (value is Text) join(kept, Text.EMPTY) else kept
    }

    fun equal(left: Any?, right: Any?): Boolean = when {
        isNumber(left) && isNumber(right) -> number(left) == number(right)
        left is List<*> && right is List<*> ->
            left.size == right.size && left.indices.all { equal(left[it], right[it]) }
        left is Map<*, *> && right is Map<*, *> ->
            left.size == right.size && left.all { (key, value) -> key in right && equal(value, right[key]) }
        else -> left == right
    }

    fun compare(left: Any?, right: Any?): Int = when {
        isNumber(left) && isNumber(right) -> number(left).compareTo(number(right))
        left is Text && right is Text -> {
            val first = left.value.codePoints().toArray()
            val second = right.value.codePoints().toArray()
            val at = first.indices.firstOrNull { it >= second.size || first[it] != second[it] }
            if (at == null || at >= second.size) first.size.compareTo(second.size) else first[at].compareTo(second[at])
        }
        else -> fail("it compares ${kind(left)} with ${kind(right)}")
    }

    fun contains(container: Any?, value: Any?): Boolean = when (container) {
        is Text -> container.value.contains((value as? Text ?: fail("it looks for ${kind(value)} in a text")).value)
        is List<*> -> container.any { equal(it, value) }
        is Map<*, *> -> value in container
        Undefined -> false
        else -> fail("it looks into ${kind(container)}")
    }

    fun arithmetic(operator: String, left: Any?, right: Any?): Any {
        if (operator == "add" && left is Text && right is Text) {
            return Text.Builder().append(left).append(right).build()
        }
        if (operator == "add" && left is List<*> && right is List<*>) return left + right
        if (!isNumber(left) || !isNumber(right)) {
            fail("it computes $operator of ${kind(left)} and ${kind(right)}")
        }
        val a = number(left)
        val b = number(right)
        if (b == 0L && (operator == "floordiv" || operator == "mod")) fail("it divides by 0")
        return try {
            when (operator) {
                "add" -> Math.addExact(a, b)
                "sub" -> Math.subtractExact(a, b)
                "mul" -> Math.multiplyExact(a, b)
                "floordiv" -> Math.floorDiv(a, b)
                else -> Math.floorMod(a, b)
            }
        } catch (failure: ArithmeticException) {
            throw ChatTemplateException("the chat template computes a number that is too large", failure)
        }
    }

    fun join(items: List<Any?>, separator: Text): Text {
        val builder = Text.Builder()
        items.forEachIndexed { index, item ->
            if (index > 0) builder.append(separator)
            builder.append(text(item))
        }
        return builder.build()
    }

    /** The characters of [text] as Python counts them. */
    fun characters(text: Text): List<Text> {
        val result = mutableListOf<Text>()
        var at = 0
        while (at < text.length) {
            val end = text.value.offsetByCodePoints(at, 1)
            result += text.substring(at, end)
            at = end
        }
        return result
    }

    fun length(value: Any?): Long = when (value) {
        is Text -> value.value.codePointCount(0, value.length).toLong()
        is List<*> -> value.size.toLong()
        is Map<*, *> -> value.size.toLong()
        Undefined -> 0
        else -> fail("it takes the length of ${kind(value)}")
    }

    /** In Python a truth value is a number. */
    fun isNumber(value: Any?): Boolean = value is Long || value is Boolean

    fun number(value: Any?): Long = when (value) {
        is Long -> value
        is Boolean -> if (value) 1 else 0
        else -> fail("it needs a number, not ${kind(value)}")
    }

    fun kind(value: Any?): String = when (value) {
        null -> "none"
        Undefined -> "something undefined"
        is Boolean -> "a truth value"
        is Long -> "a number"
        is Text -> "a text"
        is List<*> -> "a list"
        is Map<*, *> -> "a mapping"
        else -> "an object"
    }

    fun fail(what: String): Nothing = throw ChatTemplateException("the chat template fails: $what")

    private fun describe(key: Any?): String = if (key is Text) "'$key'" else key.toString()
}
