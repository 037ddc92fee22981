package dev.alc.runtime.template

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.longOrNull

/** A template as its file has it. */
internal class TemplateDocument(val tokens: Map<String, String>, val program: List<Statement>)

/**
 * Reads `chat_template.alc.json`; the compiler's `chat_template.py` and `template_program.py`
 * describe it.
 */
internal object TemplateReader {
    private const val SCHEMA = "harness.chat-template/1"

    /** Special tokens that templates know by name. */
    private val TOKENS = listOf("bos_token", "eos_token", "unk_token", "pad_token")

    fun read(text: String, name: String): TemplateDocument = try {
        val document = Json.parseToJsonElement(text).jsonObject
        val schema = document.getValue("schema").jsonPrimitive.content
        if (schema != SCHEMA) throw ModelIncompatibleException("$name is $schema, not $SCHEMA")
        TemplateDocument(
            tokens = TOKENS.filter { it in document }
                .associateWith { document.getValue(it).jsonPrimitive.content },
            program = body(document.getValue("program")),
        )
    } catch (failure: SerializationException) {
        throw ModelDamagedException("$name is not valid JSON", failure)
    } catch (failure: IllegalArgumentException) {
        throw ModelDamagedException("$name is not a compiled template: ${failure.message}", failure)
    } catch (failure: NoSuchElementException) {
        throw ModelDamagedException("$name is not a compiled template: ${failure.message}", failure)
    } catch (failure: IndexOutOfBoundsException) {
        throw ModelDamagedException("$name is not a compiled template: ${failure.message}", failure)
    }

    private fun body(element: JsonElement): List<Statement> = element.jsonArray.map { statement(it.jsonArray) }

    private fun statement(node: JsonArray): Statement = when (val kind = node.text(0)) {
        "text" -> Statement.Print(Expression.Constant(Text.markup(node.text(1))))
        "print" -> Statement.Print(expression(node[1]))
        "if" -> Statement.If(expression(node[1]), body(node[2]), body(node[3]))
        "for" -> Statement.For(
            target(node[1]),
            expression(node[2]),
            optional(node[3]),
            body(node[4]),
            body(node[5]),
        )
        "set" -> Statement.Set(target(node[1]), expression(node[2]))
        "break" -> Statement.Break
        "continue" -> Statement.Continue
        else -> throw IllegalArgumentException("unknown statement $kind")
    }

    private fun target(element: JsonElement): Target {
        val node = element.jsonArray
        return when (val kind = node.text(0)) {
            "name" -> Target.Name(node.text(1))
            "tuple" -> Target.Unpack(node[1].jsonArray.map(::target))
            "field" -> Target.Field(node.text(1), node.text(2))
            else -> throw IllegalArgumentException("unknown target $kind")
        }
    }

    private fun optional(element: JsonElement): Expression? =
        if (element is JsonNull) null else expression(element)

    private fun expressions(element: JsonElement): List<Expression> = element.jsonArray.map(::expression)

    private fun arguments(element: JsonElement): List<Expression?> = element.jsonArray.map(::optional)

    private fun pairs(element: JsonElement): List<JsonArray> = element.jsonArray.map { it.jsonArray }

    private fun expression(element: JsonElement): Expression {
        val node = element.jsonArray
        return when (val kind = node.text(0)) {
            "const" -> Expression.Constant(constant(node[1].jsonPrimitive))
            "name" -> Expression.Name(node.text(1))
            "attr" -> Expression.Attribute(expression(node[1]), node.text(2))
            "item" -> Expression.Item(expression(node[1]), expression(node[2]))
            "slice" -> Expression.Slice(
                expression(node[1]),
                optional(node[2]),
                optional(node[3]),
                optional(node[4]),
            )
            "call" -> Expression.Call(node.text(1), arguments(node[2]))
            "method" -> Expression.Method(node.text(1), expression(node[2]), arguments(node[3]))
            "filter" -> Expression.Filter(node.text(1), expression(node[2]), arguments(node[3]))
            "test" -> Expression.Test(node.text(1), expression(node[2]), arguments(node[3]))
            "namespace" -> Expression.Namespace(node[1].jsonObject.mapValues { expression(it.value) })
            "compare" -> Expression.Compare(
                expression(node[1]),
                pairs(node[2]).map { it.text(0) to expression(it[1]) },
            )
            "and" -> Expression.And(expression(node[1]), expression(node[2]))
            "or" -> Expression.Or(expression(node[1]), expression(node[2]))
            "not" -> Expression.Not(expression(node[1]))
            "neg" -> Expression.Negative(expression(node[1]))
            "add", "sub", "mul", "floordiv", "mod" ->
                Expression.Arithmetic(kind, expression(node[1]), expression(node[2]))
            "concat" -> Expression.Concat(expressions(node[1]))
            "cond" -> Expression.Conditional(expression(node[1]), expression(node[2]), optional(node[3]))
            "list", "tuple" -> Expression.Items(expressions(node[1]))
            "dict" -> Expression.Entries(pairs(node[1]).map { expression(it[0]) to expression(it[1]) })
            else -> throw IllegalArgumentException("unknown expression $kind")
        }
    }

    private fun constant(value: JsonPrimitive): Any? = when {
        value is JsonNull -> null
        value.isString -> Text.markup(value.content)
        else -> value.booleanOrNull ?: value.longOrNull
            ?: throw IllegalArgumentException("unknown constant ${value.content}")
    }

    private fun JsonArray.text(index: Int): String {
        val value = this[index].jsonPrimitive
        require(value.isString) { "$value is not a text" }
        return value.content
    }
}
