package dev.alc.runtime.template

/** Jinja's `value.name` and `value[key]`. What is not there is undefined. */
internal object Lookup {
    fun attribute(value: Value, name: String): Value = when (value) {
        is Undefined -> value.fail()
        is Namespace -> value.fields[name] ?: missing(value, name)
        is Loop -> value.attribute(name)
        else -> {
            val python = name.startsWith("__") || name in PYTHON[value.type].orEmpty()
            // Jinja would find a Python method or the like, for which there is no value here.
            if (python) fail("the attribute '$name' of a ${value.type} is not supported")
            (value as? Dict)?.entries?.get(Text.markup(name)) ?: missing(value, name)
        }
    }

    fun item(value: Value, key: Value): Value {
        if (value is Undefined) value.fail()
        if (value is Dict && Operations.isHashable(key)) value.entries[key]?.let { return it }
        return when (key) {
            is Text -> attribute(value, key.toString())
            is Number -> at(value, key.long) ?: missing(value, key.long.toString())
            else -> missing(value, key.type)
        }
    }

    private fun at(value: Value, index: Long): Value? {
        val size = if (value is Text || value is Sequence) weight(value) else 0
        val place = if (index < 0) index + size else index
        if (place !in 0 until size) return null
        return when (value) {
            is Text -> value.slice(place.toInt(), place.toInt() + 1)
            is Sequence -> value.items[place.toInt()]
            else -> null
        }
    }

    private fun missing(value: Value, name: String) = Undefined("a ${value.type} has no '$name'")

    /** The attributes of Python's types; none of them counts as an item. */
    private val PYTHON: Map<String, kotlin.collections.Set<String>> = mapOf(
        "str" to names(
            "capitalize casefold center count encode endswith expandtabs find format format_map",
            "index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric",
            "isprintable isspace istitle isupper join ljust lower lstrip maketrans partition",
            "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split",
            "splitlines startswith strip swapcase title translate upper zfill",
        ),
        "list" to names(
            "append clear copy count extend index insert pop remove reverse sort",
        ),
        "tuple" to names("count index"),
        "range" to names("count index start step stop"),
        "dict" to names(
            "clear copy fromkeys get items keys pop popitem setdefault update values",
        ),
        "int" to INT,
        "bool" to INT,
    )

    private val INT: kotlin.collections.Set<String>
        get() = names(
            "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag",
            "is_integer numerator real to_bytes",
        )

    private fun names(vararg lines: String): kotlin.collections.Set<String> =
        lines.flatMap { it.split(' ') }.toSet()
}
