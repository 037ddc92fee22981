package dev.alc.runtime.template

import dev.alc.engine.ChatTemplateException

/**
 * What a template computes with: Python's values, as far as templates meet them. Equality is
 * Python's `==`.
 */
internal sealed interface Value {
    /** How many collections lie in each other; bounds every recursion over values. */
    val depth: Int
        get() = 0

    /** The Python type's name, for messages. */
    val type: String
}

/** A name or item that does not exist; [why] says so when something needs it to. */
internal class Undefined(val why: String) : Value {
    override val type: String
        get() = "undefined"

    override fun equals(other: Any?): Boolean = other is Undefined

    override fun hashCode(): Int = 1

    /** Fails as whatever cannot do without the value does. */
    fun fail(): Nothing = fail(why)
}

internal data object None : Value {
    override val type: String
        get() = "None"
}

/** An `int` or, as in Python, a `bool`, which is equal to 0 or 1. */
internal sealed class Number : Value {
    abstract val long: Long

    override fun equals(other: Any?): Boolean = other is Number && other.long == long

    override fun hashCode(): Int = long.hashCode()
}

internal class Num(override val long: Long) : Number() {
    override val type: String
        get() = "int"
}

internal class Bool private constructor(val value: Boolean) : Number() {
    override val long: Long
        get() = if (value) 1 else 0

    override val type: String
        get() = "bool"

    companion object {
        private val yes = Bool(true)
        private val no = Bool(false)

        fun of(value: Boolean): Bool = if (value) yes else no
    }
}

/** A `list`, `tuple` or `range`. Templates cannot change any of them. */
internal class Sequence(val kind: Kind, val items: List<Value>) : Value {
    enum class Kind(val type: String) { LIST("list"), TUPLE("tuple"), RANGE("range") }

    override val depth: Int = depthOf(items)

    override val type: String
        get() = kind.type

    override fun equals(other: Any?): Boolean =
        other is Sequence && other.kind == kind && other.items == items

    override fun hashCode(): Int = items.hashCode()
}

/** A `dict`; templates cannot change it. */
internal class Dict(val entries: Map<Value, Value>) : Value {
    override val depth: Int = depthOf(entries.values)

    override val type: String
        get() = "dict"

    override fun equals(other: Any?): Boolean = other is Dict && other.entries == entries

    override fun hashCode(): Int = entries.hashCode()
}

/** What `keys()`, `values()` and `items()` of a `dict` give: can be iterated, not indexed. */
internal class View(val items: List<Value>) : Value {
    override val depth: Int = depthOf(items)

    override val type: String
        get() = "dict view"
}

/** A Python iterator: can be gone through once. */
internal class Cursor(val iterator: Iterator<Value>, override val depth: Int) : Value {
    override val type: String
        get() = "iterator"
}

/** What `namespace()` makes: the one thing that a template can change. */
internal class Namespace(val fields: MutableMap<String, Value>) : Value {
    override val type: String
        get() = "Namespace"
}

/** The greatest [Value.depth] and the most items of a collection; templates need a few. */
private const val MAX_DEPTH = 64
internal const val MAX_ITEMS: Int = 1 shl 20

private fun depthOf(items: Collection<Value>): Int {
    if (items.size > MAX_ITEMS) fail("a collection has more than $MAX_ITEMS items")
    val depth = 1 + (items.maxOfOrNull { it.depth } ?: 0)
    if (depth > MAX_DEPTH) fail("collections are nested too deeply")
    return depth
}

internal fun list(items: List<Value>): Sequence = Sequence(Sequence.Kind.LIST, items)

internal fun tuple(vararg items: Value): Sequence = Sequence(Sequence.Kind.TUPLE, items.asList())

/** Ends the rendering: Python would raise an exception. */
internal fun fail(what: String): Nothing =
    throw ChatTemplateException("the chat template fails: $what")

/** Ends the rendering with the template's own [words]. */
internal fun refuse(words: Text): Nothing =
    throw ChatTemplateException("the chat template refuses this conversation: $words")
