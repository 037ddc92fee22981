package dev.alc.runtime.template

import dev.alc.engine.ModelDamagedException
import dev.alc.runtime.parseDocument
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.longOrNull

/** A template as its file has it. */
internal class TemplateProgram(val tokens: Map<String, Text>, val body: Block)

/**
 * Reads `chat_template.alc.json`; the compiler's `chat_template.py` and `template_program.py`
 * describe it. Nothing is skipped and nothing is guessed.
 */
internal class TemplateReader private constructor(private val source: String) {
    private fun read(document: JsonObject): TemplateProgram {
        val unknown = document.keys - TOKENS - setOf("schema", "program")
        if (unknown.isNotEmpty()) damaged("it has unknown entries: ${unknown.joinToString()}")
        val tokens = TOKENS.filter(document::containsKey)
            .associateWith { Text.markup(text(document.getValue(it))) }
        return TemplateProgram(tokens, block(document["program"] ?: damaged("it has no program")))
    }

    private fun block(element: JsonElement): Block = Block(array(element).map(::statement))

    private fun statement(element: JsonElement): Statement = node(element) { kind, parts ->
        when (kind to parts.size) {
            "text" to 1 -> Write(Text.markup(text(parts[0])))
            "print" to 1 -> Print(expression(parts[0]))
            "if" to 3 -> If(expression(parts[0]), block(parts[1]), block(parts[2]))
            "for" to 5 -> For(
                target(parts[0]),
                expression(parts[1]),
                optional(parts[2]),
                block(parts[3]),
                block(parts[4]),
            )
            "set" to 2 -> Set(target(parts[0]), expression(parts[1]))
            "break" to 0 -> Statement { Flow.BREAK }
            "continue" to 0 -> Statement { Flow.CONTINUE }
            else -> damaged("an unknown statement '$kind' with ${parts.size} parts")
        }
    }

    private fun target(element: JsonElement): Target = node(element) { kind, parts ->
        when (kind to parts.size) {
            "name" to 1 -> NameTarget(text(parts[0]))
            "tuple" to 1 -> TupleTarget(array(parts[0]).map(::target))
            "field" to 2 -> FieldTarget(text(parts[0]), text(parts[1]))
            else -> damaged("an unknown target '$kind' with ${parts.size} parts")
        }
    }

    private fun optional(element: JsonElement): Expression? =
        if (element is JsonNull) null else expression(element)

    private fun expressions(element: JsonElement): List<Expression> =
        array(element).map(::expression)

    private fun expression(element: JsonElement): Expression = node(element) { kind, parts ->
        when (kind to parts.size) {
            "const" to 1 -> Constant(constant(parts[0]))
            "name" to 1 -> Name(text(parts[0]))
            "attr" to 2 -> Attribute(expression(parts[0]), text(parts[1]))
            "item" to 2 -> Item(expression(parts[0]), expression(parts[1]))
            "slice" to 4 -> {
                val (from, until, step) = parts.drop(1).map(::optional)
                Slice(expression(parts[0]), from, until, step)
            }
            "call" to 2 -> {
                val given = array(parts[1])
                if (given.isEmpty()) damaged("a call without arguments")
                val rest = JsonArray(given.drop(1))
                apply(FUNCTIONS, parts[0], expression(given[0]), rest)
            }
            "method" to 3 -> apply(METHODS, parts[0], expression(parts[1]), parts[2])
            "filter" to 3 -> apply(FILTERS, parts[0], expression(parts[1]), parts[2])
            "test" to 3 -> apply(TESTS, parts[0], expression(parts[1]), parts[2])
            "namespace" to 1 -> {
                val fields = parts[0] as? JsonObject ?: damaged("fields that are no object")
                NewNamespace(fields.mapValues { expression(it.value) })
            }
            "compare" to 2 -> Compare(expression(parts[0]), array(parts[1]).map(::comparison))
            "and" to 2 -> And(expression(parts[0]), expression(parts[1]))
            "or" to 2 -> Or(expression(parts[0]), expression(parts[1]))
            "not" to 1 -> Not(expression(parts[0]))
            "neg" to 1 -> Negative(expression(parts[0]))
            "concat" to 1 -> Concat(expressions(parts[0]))
            "cond" to 3 -> Choice(expression(parts[0]), expression(parts[1]), optional(parts[2]))
            "list" to 1 -> NewSequence(Sequence.Kind.LIST, expressions(parts[0]))
            "tuple" to 1 -> NewSequence(Sequence.Kind.TUPLE, expressions(parts[0]))
            "dict" to 1 -> NewDict(
                array(parts[0]).map { pair ->
                    val both = expressions(pair)
                    if (both.size != 2) damaged("an entry with ${both.size} parts")
                    both[0] to both[1]
                },
            )
            else -> arithmetic(kind, parts)
        }
    }

    private fun arithmetic(kind: String, parts: List<JsonElement>): Expression {
        val operation = ARITHMETIC[kind]
        if (operation == null || parts.size != 2) {
            damaged("an unknown expression '$kind' with ${parts.size} parts")
        }
        return Arithmetic(operation, expression(parts[0]), expression(parts[1]))
    }

    private fun comparison(element: JsonElement): Pair<Comparison, Expression> =
        node(element) { kind, parts ->
            val comparison = Comparison.entries.firstOrNull { it.name.lowercase() == kind }
            if (comparison == null || parts.size != 1) damaged("an unknown comparison '$kind'")
            comparison to expression(parts[0])
        }

    private fun apply(
        builtins: Map<String, Builtin>,
        name: JsonElement,
        of: Expression,
        arguments: JsonElement,
    ): Expression {
        val builtin = builtins[text(name)] ?: damaged("it uses the unknown '${text(name)}'")
        val given = array(arguments).map(::optional)
        if (given.size != builtin.most || given.take(builtin.least).any { it == null }) {
            damaged("'${text(name)}' has other arguments than it takes")
        }
        return Apply(builtin, of, given)
    }

    private fun constant(element: JsonElement): Value = when {
        element is JsonNull -> None
        element !is JsonPrimitive -> damaged("a constant that is a collection")
        element.isString -> Text.markup(element.content)
        else -> element.booleanOrNull?.let(Bool::of) ?: element.longOrNull?.let(::Num)
            ?: damaged("the constant ${element.content}")
    }

    /** Reads a list that begins with the name of its kind. */
    private inline fun <T> node(
        element: JsonElement,
        read: (kind: String, parts: List<JsonElement>) -> T,
    ): T {
        val items = array(element)
        if (items.isEmpty()) damaged("an empty node")
        return read(text(items[0]), items.drop(1))
    }

    private fun array(element: JsonElement): JsonArray =
        element as? JsonArray ?: damaged("something other than a list where one belongs")

    private fun text(element: JsonElement): String =
        (element as? JsonPrimitive)?.takeIf { it.isString }?.content
            ?: damaged("something other than a text where one belongs")

    private fun damaged(what: String): Nothing = throw ModelDamagedException("$source: $what")

    companion object {
        private const val SCHEMA = "harness.chat-template/1"

        /** More than the compiler lets through, and little enough for any thread's stack. */
        private const val MAX_NESTING = 220
        private val TOKENS = setOf("bos_token", "eos_token", "unk_token", "pad_token")
        private val ARITHMETIC: Map<String, (Value, Value) -> Value> = mapOf(
            "add" to Operations::add,
            "sub" to Operations::subtract,
            "mul" to Operations::multiply,
            "floordiv" to Operations::floorDivide,
            "mod" to Operations::modulo,
        )

        /**
         * The template in the document [text] of the file [source].
         *
         * @throws ModelDamagedException if it is not whole.
         * @throws dev.alc.engine.ModelIncompatibleException if it has another schema.
         */
        fun read(text: String, source: String): TemplateProgram {
            val reader = TemplateReader(source)
            // The JSON library reads by recursion too.
            if (nesting(text) > MAX_NESTING) reader.damaged("it is nested too deeply")
            return reader.read(parseDocument(source, text, JsonObject.serializer(), SCHEMA))
        }

        /** How many brackets are open at once, at most. */
        private fun nesting(text: String): Int {
            var open = 0
            var most = 0
            var quoted = false
            var at = 0
            while (at < text.length) {
                when (text[at]) {
                    '"' -> quoted = !quoted
                    '\\' -> at++
                    '[', '{' -> if (!quoted) most = maxOf(most, ++open)
                    ']', '}' -> if (!quoted) open--
                }
                at++
            }
            return most
        }
    }
}
