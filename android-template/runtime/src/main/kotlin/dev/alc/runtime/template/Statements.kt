package dev.alc.runtime.template

/** How a statement ends: whether the next one follows, or the loop around it goes on or ends. */
internal enum class Flow { NEXT, CONTINUE, BREAK }

/** A statement of a compiled template. */
internal fun interface Statement {
    fun run(scope: Scope): Flow
}

/** Statements in a row. */
internal class Block(private val statements: List<Statement>) : Statement {
    override fun run(scope: Scope): Flow {
        for (statement in statements) {
            scope.rendering.spend(1)
            val flow = statement.run(scope)
            if (flow != Flow.NEXT) return flow
        }
        return Flow.NEXT
    }
}

internal class Write(private val text: Text) : Statement {
    override fun run(scope: Scope): Flow {
        scope.rendering.output.add(text)
        return Flow.NEXT
    }
}

internal class Print(private val value: Expression) : Statement {
    override fun run(scope: Scope): Flow {
        val text = Notation.str(value.evaluate(scope))
        scope.rendering.spend(text.length)
        scope.rendering.output.add(text)
        return Flow.NEXT
    }
}

internal class If(
    private val test: Expression,
    private val then: Block,
    private val otherwise: Block,
) : Statement {
    override fun run(scope: Scope): Flow =
        (if (test.holds(scope)) then else otherwise).run(scope)
}

internal class For(
    private val target: Target,
    private val values: Expression,
    private val filter: Expression?,
    private val body: Block,
    private val otherwise: Block,
) : Statement {
    override fun run(scope: Scope): Flow {
        val value = values.evaluate(scope)
        scope.rendering.spend(weight(value))
        val loop = loop(value, scope)
        var empty = true
        while (true) {
            val item = loop.advance() ?: break
            empty = false
            scope.rendering.spend(1)
            val inner = scope.inner()
            inner["loop"] = loop
            target.assign(inner, item)
            if (body.run(inner) == Flow.BREAK) break
        }
        return if (empty) otherwise.run(scope.inner()) else Flow.NEXT
    }

    private fun loop(value: Value, scope: Scope): Loop {
        val items = Operations.iterate(value)
        if (filter == null) return Loop(items, if (value is Cursor) null else weight(value))
        val kept = items.asSequence().filter { item ->
            scope.rendering.spend(1)
            val inner = scope.inner()
            target.assign(inner, item)
            filter.holds(inner)
        }
        return Loop(kept.iterator(), null)
    }
}

internal class Set(private val target: Target, private val value: Expression) : Statement {
    override fun run(scope: Scope): Flow {
        target.assign(scope, value.evaluate(scope))
        return Flow.NEXT
    }
}

/** What a value is assigned to. */
internal fun interface Target {
    fun assign(scope: Scope, value: Value)
}

internal class NameTarget(private val name: String) : Target {
    override fun assign(scope: Scope, value: Value) {
        scope[name] = value
    }
}

internal class TupleTarget(private val targets: List<Target>) : Target {
    override fun assign(scope: Scope, value: Value) {
        val items = Operations.iterate(value)
        for (target in targets) {
            if (!items.hasNext()) fail("not enough values to unpack into ${targets.size}")
            target.assign(scope, items.next())
        }
        if (items.hasNext()) fail("too many values to unpack into ${targets.size}")
    }
}

internal class FieldTarget(private val name: String, private val field: String) : Target {
    override fun assign(scope: Scope, value: Value) {
        val namespace = scope[name] as? Namespace ?: fail("'$name' is not a namespace")
        namespace.fields[field] = value
    }
}
