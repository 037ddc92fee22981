package dev.alc.runtime.template

import dev.alc.runtime.template.Values.Undefined
import dev.alc.runtime.template.Values.fail

/** Renders a compiled template once. Not safe for use from several threads. */
internal class Interpreter(globals: Map<String, Any?>) {
    private var scope = Scope(null, globals.toMutableMap())
    private val output = Text.Builder()

    /** Names that are visible in a part of the template; a loop's body has its own. */
    private class Scope(val outer: Scope?, val names: MutableMap<String, Any?>) {
        fun find(name: String): Any? {
            var scope: Scope? = this
            while (scope != null) {
                if (name in scope.names) return scope.names[name]
                scope = scope.outer
            }
            return Undefined
        }
    }

    private enum class Signal { NONE, BREAK, CONTINUE }

    fun render(body: List<Statement>): Text {
        run(body)
        return output.build()
    }

    private fun run(body: List<Statement>): Signal {
        for (statement in body) {
            val signal = run(statement)
            if (signal != Signal.NONE) return signal
        }
        return Signal.NONE
    }

    private fun run(statement: Statement): Signal {
        when (statement) {
            is Statement.Print -> output.append(Values.text(value(statement.value)))
            is Statement.If ->
                return run(if (truth(statement.test)) statement.then else statement.otherwise)
            is Statement.For -> loop(statement)
            is Statement.Set -> assign(statement.target, value(statement.value))
            Statement.Break -> return Signal.BREAK
            Statement.Continue -> return Signal.CONTINUE
        }
        return Signal.NONE
    }

    private fun loop(statement: Statement.For) {
        val outer = scope
        var items = Values.list(value(statement.items))
        try {
            statement.filter?.let { filter ->
                items = items.filter { item ->
                    scope = Scope(outer, mutableMapOf())
                    assign(statement.target, item)
                    truth(filter)
                }
            }
            for ((index, item) in items.withIndex()) {
                scope = Scope(outer, mutableMapOf("loop" to Values.Loop(items, index)))
                assign(statement.target, item)
                if (run(statement.body) == Signal.BREAK) break
            }
            if (items.isEmpty()) {
                scope = Scope(outer, mutableMapOf())
                run(statement.otherwise)
            }
        } finally {
            scope = outer
        }
    }

    private fun assign(target: Target, value: Any?) {
        when (target) {
            is Target.Name -> scope.names[target.name] = value
            is Target.Unpack -> {
                val items = Values.list(value)
                if (items.size != target.targets.size) {
                    fail("it unpacks ${items.size} values into ${target.targets.size}")
                }
                target.targets.zip(items).forEach { (inner, item) -> assign(inner, item) }
            }
            is Target.Field -> {
                val namespace = scope.find(target.namespace) as? Values.Namespace
                    ?: fail("'${target.namespace}' is not a namespace")
                namespace.fields[target.field] = value
            }
        }
    }

    private fun truth(expression: Expression): Boolean = Values.truth(value(expression))

    private fun value(expression: Expression): Any? = when (expression) {
        is Expression.Constant -> expression.value
        is Expression.Name -> scope.find(expression.name)
        is Expression.Attribute -> Values.attribute(value(expression.of), expression.name)
        is Expression.Item -> Values.item(value(expression.of), value(expression.key))
        is Expression.Slice -> Values.slice(
            value(expression.of),
            expression.start?.let(::value),
            expression.stop?.let(::value),
            expression.step?.let(::value),
        )
        is Expression.Call -> Operations.call(expression.function, given(expression.function, expression.arguments))
        is Expression.Method -> Operations.method(
            value(expression.of),
            expression.name,
            given(expression.name, expression.arguments),
        )
        is Expression.Filter -> Operations.filter(
            expression.name,
            value(expression.of),
            given(expression.name, expression.arguments),
        )
        is Expression.Test -> Operations.test(
            expression.name,
            value(expression.of),
            given(expression.name, expression.arguments),
        )
        is Expression.Namespace -> Values.Namespace(expression.fields.mapValues { value(it.value) }.toMutableMap())
        is Expression.Compare -> compare(expression)
        is Expression.And -> value(expression.left).let { if (Values.truth(it)) value(expression.right) else it }
        is Expression.Or -> value(expression.left).let { if (Values.truth(it)) it else value(expression.right) }
        is Expression.Not -> !truth(expression.of)
        is Expression.Negative -> Values.arithmetic("sub", 0L, value(expression.of))
        is Expression.Arithmetic ->
            Values.arithmetic(expression.operator, value(expression.left), value(expression.right))
        is Expression.Concat -> Values.join(expression.parts.map(::value), Text.EMPTY)
        is Expression.Conditional -> when {
            truth(expression.test) -> value(expression.then)
            expression.otherwise == null -> Undefined
            else -> value(expression.otherwise)
        }
        is Expression.Items -> expression.items.map(::value)
        is Expression.Entries -> expression.entries.associate { (key, item) -> value(key) to value(item) }
    }

    private fun given(what: String, arguments: List<Expression?>): Given =
        Given(what, arguments.map { if (it == null) Given.Absent else value(it) })

    /** Chained as in Python: `a < b < c` is `a < b and b < c`. */
    private fun compare(expression: Expression.Compare): Boolean {
        var left = value(expression.first)
        for ((operator, other) in expression.others) {
            val right = value(other)
            val holds = when (operator) {
                "eq" -> Values.equal(left, right)
                "ne" -> !Values.equal(left, right)
                "in" -> Values.contains(right, left)
                "notin" -> !Values.contains(right, left)
                "lt" -> Values.compare(left, right) < 0
                "lteq" -> Values.compare(left, right) <= 0
                "gt" -> Values.compare(left, right) > 0
                "gteq" -> Values.compare(left, right) >= 0
                else -> fail("unknown comparison $operator")
            }
            if (!holds) return false
            left = right
        }
        return true
    }
}
