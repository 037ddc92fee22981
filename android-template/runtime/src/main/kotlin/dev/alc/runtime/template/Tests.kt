package dev.alc.runtime.template

/** Jinja's tests: what may follow `is`. */
internal val TESTS: Map<String, Builtin> = mapOf(
    "defined" to test { it !is Undefined },
    "undefined" to test { it is Undefined },
    "none" to test { it == None },
    "string" to test { it is Text },
    "mapping" to test { it is Dict },
    "sequence" to test { it is Text || it is Sequence || it is Dict || it is Undefined },
    "iterable" to test { it is Loop || Operations.iteratorOf(it) != null },
    "number" to test { it is Number },
    "integer" to test { it is Num },
    "boolean" to test { it is Bool },
    "true" to test { it is Bool && it.value },
    "false" to test { it is Bool && !it.value },
    "odd" to test { Math.floorMod(Operations.int(it), 2L) == 1L },
    "even" to test { Math.floorMod(Operations.int(it), 2L) == 0L },
    "eq" to against { value, other -> value == other },
    "equalto" to against { value, other -> value == other },
    "==" to against { value, other -> value == other },
    "ne" to against { value, other -> value != other },
    "!=" to against { value, other -> value != other },
    "in" to against { value, other -> Operations.contains(other, value) },
)

private fun test(holds: (Value) -> Boolean) =
    Builtin(0, 0) { value, _ -> Bool.of(holds(value)) }

private fun against(holds: (Value, Value) -> Boolean) =
    Builtin(1, 1) { value, given -> Bool.of(holds(value, given[0]!!)) }
