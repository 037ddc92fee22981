package dev.alc.runtime.template

/** Jinja's filters, and `tojson` as Hugging Face replaces it. */
internal val FILTERS: Map<String, Builtin> = mapOf(
    "trim" to Builtin(0, 1) { value, given ->
        Strings.strip(Notation.str(value), chars(given[0]))
    },
    "upper" to Builtin(0, 0) { value, _ -> Strings.upper(Notation.str(value)) },
    "lower" to Builtin(0, 0) { value, _ -> Strings.lower(Notation.str(value)) },
    "string" to Builtin(0, 0) { value, _ -> Notation.str(value) },
    "replace" to Builtin(2, 3) { value, given ->
        val count = given[2]?.takeIf { it != None }?.let(Operations::int) ?: -1
        val (old, new) = given.take(2).map { Notation.str(it!!) }
        Strings.replace(Notation.str(value), old, new, count)
    },
    "join" to Builtin(0, 1) { value, given -> join(value, given[0]) },
    "tojson" to Builtin(0, 1) { value, given -> Notation.json(value, indent(given[0])) },
    "length" to Builtin(0, 0) { value, _ -> length(value) },
    "count" to Builtin(0, 0) { value, _ -> length(value) },
    "default" to Builtin(0, 2, ::default),
    "d" to Builtin(0, 2, ::default),
    "first" to Builtin(0, 0) { value, _ ->
        val items = Operations.iterate(value)
        if (items.hasNext()) items.next() else Undefined("there is no first item")
    },
    "last" to Builtin(0, 0) { value, _ ->
        backwards(value)?.firstOrNull(fail = "there is no last item")
            ?: fail("a value of the type ${value.type} cannot be reversed")
    },
    "list" to Builtin(0, 0) { value, _ -> list(collect(value)) },
    "reverse" to Builtin(0, 0) { value, _ ->
        if (value is Text) {
            value.pick(IntArray(value.length) { value.length - 1 - it })
        } else {
            backwards(value)?.let { Cursor(it.iterator(), value.depth) }
                ?: list(collect(value).asReversed())
        }
    },
    "items" to Builtin(0, 0) { value, _ ->
        // Jinja's is a generator, which looks at the value only when something goes through it.
        val items = sequence {
            if (value is Dict) yieldAll(pairs(value))
            if (value !is Dict && value !is Undefined) fail("a dict is needed, not ${value.type}")
        }
        Cursor(items.iterator(), value.depth)
    },
)

private fun length(value: Value) = Num(Operations.length(value).toLong())

private fun default(value: Value, given: List<Value?>): Value {
    val strict = given[1]?.let(Operations::truth) ?: false
    val missing = value is Undefined || (strict && !Operations.truth(value))
    return if (missing) given[0] ?: Text.EMPTY else value
}

private fun join(value: Value, separator: Value?): Value {
    val between = separator?.let(Notation::str) ?: Text.EMPTY
    val result = TextBuilder()
    collect(value).forEachIndexed { index, item ->
        if (index > 0) result.add(between)
        result.add(Notation.str(item))
    }
    return result.build()
}

private fun indent(value: Value?): String? =
    if (value == null || value == None) {
        null
    } else {
        " ".repeat(Operations.int(value).coerceIn(0, MAX_INDENT).toInt())
    }

private const val MAX_INDENT = 64L

private fun collect(value: Value): List<Value> =
    Operations.iterate(value).asSequence().take(MAX_ITEMS + 1).toList()

private fun backwards(value: Value): List<Value>? = Operations.itemsOf(value)?.asReversed()

private fun List<Value>.firstOrNull(fail: String): Value = firstOrNull() ?: Undefined(fail)
