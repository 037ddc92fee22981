package dev.alc.runtime.template

/** A statement of a compiled template. */
internal sealed interface Statement {
    class Print(val value: Expression) : Statement

    class If(val test: Expression, val then: List<Statement>, val otherwise: List<Statement>) : Statement

    class For(
        val target: Target,
        val items: Expression,
        val filter: Expression?,
        val body: List<Statement>,
        val otherwise: List<Statement>,
    ) : Statement

    class Set(val target: Target, val value: Expression) : Statement

    data object Break : Statement

    data object Continue : Statement
}

/** What a value is assigned to. */
internal sealed interface Target {
    class Name(val name: String) : Target

    class Unpack(val targets: List<Target>) : Target

    class Field(val namespace: String, val field: String) : Target
}

/** An expression of a compiled template. */
internal sealed interface Expression {
    class Constant(val value: Any?) : Expression

    class Name(val name: String) : Expression

    class Attribute(val of: Expression, val name: String) : Expression

    class Item(val of: Expression, val key: Expression) : Expression

    class Slice(
        val of: Expression,
        val start: Expression?,
        val stop: Expression?,
        val step: Expression?,
    ) : Expression

    /** Arguments here and below are by position; null stands for one that was left out. */
    class Call(val function: String, val arguments: List<Expression?>) : Expression

    class Method(val name: String, val of: Expression, val arguments: List<Expression?>) : Expression

    class Filter(val name: String, val of: Expression, val arguments: List<Expression?>) : Expression

    class Test(val name: String, val of: Expression, val arguments: List<Expression?>) : Expression

    class Namespace(val fields: Map<String, Expression>) : Expression

    class Compare(val first: Expression, val others: List<Pair<String, Expression>>) : Expression

    class And(val left: Expression, val right: Expression) : Expression

    class Or(val left: Expression, val right: Expression) : Expression

    class Not(val of: Expression) : Expression

    class Negative(val of: Expression) : Expression

    class Arithmetic(val operator: String, val left: Expression, val right: Expression) : Expression

    class Concat(val parts: List<Expression>) : Expression

    class Conditional(val test: Expression, val then: Expression, val otherwise: Expression?) : Expression

    class Items(val items: List<Expression>) : Expression

    class Entries(val entries: List<Pair<Expression, Expression>>) : Expression
}
