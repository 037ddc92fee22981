package dev.alc.runtime.template

/**
 * Something that a template can call by name: on a value, with up to [most] arguments of which
 * the first [least] must be given. The compiler has resolved the arguments' names; null stands
 * for one that was left out.
 */
internal class Builtin(
    val least: Int,
    val most: Int,
    val run: (value: Value, arguments: List<Value?>) -> Value,
)

/** Functions. What they work on is their first argument. */
internal val FUNCTIONS: Map<String, Builtin> = mapOf(
    "raise_exception" to Builtin(0, 0) { message, _ ->
        refuse(Notation.str(message))
    },
    "range" to Builtin(0, 2) { first, given -> range(first, given[0], given[1]) },
)

private const val MAX_RANGE = 100_000L

private fun range(first: Value, second: Value?, third: Value?): Value {
    val start = if (second == null) 0 else Operations.int(first)
    val stop = Operations.int(second ?: first)
    val step = if (third == null) 1 else Operations.int(third)
    if (step == 0L) fail("range() has the step 0")
    val numbers = when {
        step == Long.MIN_VALUE || stop == Long.MIN_VALUE -> fail("range() has too large a step")
        step > 0 -> start until stop step step
        else -> start downTo stop + 1 step -step
    }
    val items = numbers.asSequence().take(MAX_RANGE.toInt() + 1).map(::Num).toList()
    // Jinja's sandbox has this limit.
    if (items.size > MAX_RANGE) fail("range() has more than $MAX_RANGE items")
    return Sequence(Sequence.Kind.RANGE, items)
}

/** Methods of texts and mappings. No name belongs to both. */
internal val METHODS: Map<String, Builtin> = mapOf(
    "strip" to onText(0, 1) { text, given -> Strings.strip(text, chars(given[0])) },
    "lstrip" to onText(0, 1) { text, given ->
        Strings.strip(text, chars(given[0]), right = false)
    },
    "rstrip" to onText(0, 1) { text, given ->
        Strings.strip(text, chars(given[0]), left = false)
    },
    "split" to onText(0, 2) { text, given ->
        list(Strings.split(text, chars(given[0]), given[1]?.let(Operations::int) ?: -1))
    },
    "startswith" to onText(1, 1) { text, given ->
        Bool.of(affixes(given[0]!!).any { text.holds(it, 0) })
    },
    "endswith" to onText(1, 1) { text, given ->
        Bool.of(affixes(given[0]!!).any { text.holds(it, text.length - it.length) })
    },
    "replace" to onText(2, 3) { text, given ->
        val old = Operations.text(given[0]!!)
        val new = Operations.text(given[1]!!)
        Strings.replace(text, old, new, given[2]?.let(Operations::int) ?: -1)
    },
    "upper" to onText(0, 0) { text, _ -> Strings.upper(text) },
    "lower" to onText(0, 0) { text, _ -> Strings.lower(text) },
    "get" to onDict(1, 2) { dict, given ->
        dict.entries[Operations.hashable(given[0]!!)] ?: given[1] ?: None
    },
    "items" to onDict(0, 0) { dict, _ -> View(pairs(dict)) },
    "keys" to onDict(0, 0) { dict, _ -> View(dict.entries.keys.toList()) },
    "values" to onDict(0, 0) { dict, _ -> View(dict.entries.values.toList()) },
)

private fun onText(least: Int, most: Int, run: (Text, List<Value?>) -> Value) =
    Builtin(least, most) { value, given -> run(Operations.text(value), given) }

private fun onDict(least: Int, most: Int, run: (Dict, List<Value?>) -> Value) =
    Builtin(least, most) { value, given ->
        if (value is Undefined) value.fail()
        run(value as? Dict ?: fail("a dict is needed, not ${value.type}"), given)
    }

internal fun pairs(dict: Dict): List<Value> =
    dict.entries.map { (key, value) -> tuple(key, value) }

/** Characters or a separator; null where Python takes white space. */
internal fun chars(value: Value?): Text? =
    if (value == null || value == None) null else Operations.text(value)

private fun affixes(value: Value): List<Text> =
    if (value is Sequence && value.kind == Sequence.Kind.TUPLE) {
        value.items.map(Operations::text)
    } else {
        listOf(Operations.text(value))
    }
