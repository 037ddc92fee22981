package dev.alc.runtime.template

/** An expression of a compiled template. */
internal abstract class Expression {
    protected abstract fun compute(scope: Scope): Value

    fun evaluate(scope: Scope): Value {
        scope.rendering.spend(1)
        return compute(scope)
    }

    fun holds(scope: Scope): Boolean = Operations.truth(evaluate(scope))
}

internal class Constant(private val value: Value) : Expression() {
    override fun compute(scope: Scope): Value = value
}

internal class Name(private val name: String) : Expression() {
    override fun compute(scope: Scope): Value = scope[name]
}

internal class Attribute(private val of: Expression, private val name: String) : Expression() {
    override fun compute(scope: Scope): Value = Lookup.attribute(of.evaluate(scope), name)
}

internal class Item(private val of: Expression, private val key: Expression) : Expression() {
    override fun compute(scope: Scope): Value =
        Lookup.item(of.evaluate(scope), key.evaluate(scope))
}

internal class Slice(
    private val of: Expression,
    private val from: Expression?,
    private val until: Expression?,
    private val step: Expression?,
) : Expression() {
    override fun compute(scope: Scope): Value {
        val value = of.evaluate(scope)
        val bounds = listOf(from, until, step).map { it?.evaluate(scope) }
        val result = Operations.slice(value, bounds[0], bounds[1], bounds[2])
        scope.rendering.spend(weight(result))
        return result
    }
}

/** A function, method, filter or test on [of]; what a function works on is its first argument. */
internal class Apply(
    private val builtin: Builtin,
    private val of: Expression,
    private val arguments: List<Expression?>,
) : Expression() {
    override fun compute(scope: Scope): Value {
        val value = of.evaluate(scope)
        val given = arguments.map { it?.evaluate(scope) }
        scope.rendering.spend(weight(value))
        val result = builtin.run(value, given)
        scope.rendering.spend(weight(result))
        return result
    }
}

internal class NewNamespace(private val fields: Map<String, Expression>) : Expression() {
    override fun compute(scope: Scope): Value =
        Namespace(fields.mapValuesTo(HashMap()) { it.value.evaluate(scope) })
}

/** Comparisons in a chain: `a < b < c` is `a < b and b < c`. */
internal class Compare(
    private val first: Expression,
    private val others: List<Pair<Comparison, Expression>>,
) : Expression() {
    override fun compute(scope: Scope): Value {
        var left = first.evaluate(scope)
        for ((comparison, other) in others) {
            val right = other.evaluate(scope)
            scope.rendering.spend(minOf(weight(left), weight(right)))
            if (!comparison.holds(left, right)) return Bool.of(false)
            left = right
        }
        return Bool.of(true)
    }
}

/** An operator between two values, by its name in the compiled form. */
internal enum class Comparison(val holds: (Value, Value) -> Boolean) {
    EQ({ left, right -> left == right }),
    NE({ left, right -> left != right }),
    LT({ left, right -> Operations.compare(left, right) < 0 }),
    LTEQ({ left, right -> Operations.compare(left, right) <= 0 }),
    GT({ left, right -> Operations.compare(left, right) > 0 }),
    GTEQ({ left, right -> Operations.compare(left, right) >= 0 }),
    IN({ left, right -> Operations.contains(right, left) }),
    NOTIN({ left, right -> !Operations.contains(right, left) }),
}

internal class And(private val left: Expression, private val right: Expression) : Expression() {
    override fun compute(scope: Scope): Value {
        val value = left.evaluate(scope)
        return if (Operations.truth(value)) right.evaluate(scope) else value
    }
}

internal class Or(private val left: Expression, private val right: Expression) : Expression() {
    override fun compute(scope: Scope): Value {
        val value = left.evaluate(scope)
        return if (Operations.truth(value)) value else right.evaluate(scope)
    }
}

internal class Not(private val of: Expression) : Expression() {
    override fun compute(scope: Scope): Value = Bool.of(!of.holds(scope))
}

internal class Negative(private val of: Expression) : Expression() {
    override fun compute(scope: Scope): Value = Operations.negate(of.evaluate(scope))
}

internal class Arithmetic(
    private val operation: (Value, Value) -> Value,
    private val left: Expression,
    private val right: Expression,
) : Expression() {
    override fun compute(scope: Scope): Value {
        val result = operation(left.evaluate(scope), right.evaluate(scope))
        scope.rendering.spend(weight(result))
        return result
    }
}

/** Jinja's `~`: everything as text. */
internal class Concat(private val parts: List<Expression>) : Expression() {
    override fun compute(scope: Scope): Value {
        val result = TextBuilder()
        for (part in parts) result.add(Notation.str(part.evaluate(scope)))
        scope.rendering.spend(result.length)
        return result.build()
    }
}

internal class Choice(
    private val test: Expression,
    private val then: Expression,
    private val otherwise: Expression?,
) : Expression() {
    override fun compute(scope: Scope): Value = when {
        test.holds(scope) -> then.evaluate(scope)
        otherwise == null -> Undefined("the inline if-expression has no value")
        else -> otherwise.evaluate(scope)
    }
}

internal class NewSequence(
    private val kind: Sequence.Kind,
    private val items: List<Expression>,
) : Expression() {
    override fun compute(scope: Scope): Value = Sequence(kind, items.map { it.evaluate(scope) })
}

internal class NewDict(private val entries: List<Pair<Expression, Expression>>) : Expression() {
    override fun compute(scope: Scope): Value = Dict(
        entries.associate { (key, value) ->
            Operations.hashable(key.evaluate(scope)) to value.evaluate(scope)
        },
    )
}

/** How many characters or items going through [value] meets. */
internal fun weight(value: Value): Int = when (value) {
    is Text -> value.length
    is Sequence -> value.items.size
    is Dict -> value.entries.size
    is View -> value.items.size
    else -> 0
}
