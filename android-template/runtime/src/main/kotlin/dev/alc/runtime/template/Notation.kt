package dev.alc.runtime.template

/** Values written down: Python's `str()` and `repr()`, and JSON as `json.dumps()` writes it. */
internal object Notation {
    /** `str(value)`; an undefined value is empty, as Jinja prints it. */
    fun str(value: Value): Text = when (value) {
        is Text -> value
        is Undefined -> Text.EMPTY
        else -> TextBuilder().also { repr(value, it) }.build()
    }

    private fun repr(value: Value, out: TextBuilder) {
        when (value) {
            is Undefined -> out.add("Undefined")
            None -> out.add("None")
            is Bool -> out.add(if (value.value) "True" else "False")
            is Num -> out.add(value.long.toString())
            is Text -> reprText(value, out)
            is Dict -> {
                val pairs = value.entries.entries
                enclose(out, "{", pairs, "}") { (key, item) ->
                    repr(key, out)
                    out.add(": ")
                    repr(item, out)
                }
            }
            is Sequence -> when (value.kind) {
                Sequence.Kind.LIST -> enclose(out, "[", value.items, "]") { repr(it, out) }
                Sequence.Kind.TUPLE -> {
                    val close = if (value.items.size == 1) ",)" else ")"
                    enclose(out, "(", value.items, close) { repr(it, out) }
                }
                Sequence.Kind.RANGE -> fail("a range cannot be printed")
            }
            is View, is Cursor, is Namespace, is Loop -> fail("a ${value.type} cannot be printed")
        }
    }

    private inline fun <T> enclose(
        out: TextBuilder,
        open: String,
        items: Collection<T>,
        close: String,
        write: (T) -> Unit,
    ) {
        out.add(open)
        items.forEachIndexed { index, item ->
            if (index > 0) out.add(", ")
            write(item)
        }
        out.add(close)
    }

    private fun reprText(text: Text, out: TextBuilder) {
        val points = (0 until text.length).map { text[it] }
        val quote = if ('\''.code in points && '"'.code !in points) '"' else '\''
        out.add(quote.toString())
        points.forEachIndexed { index, point ->
            val escape = when (point) {
                '\\'.code -> "\\\\"
                quote.code -> "\\$quote"
                '\n'.code -> "\\n"
                '\r'.code -> "\\r"
                '\t'.code -> "\\t"
                else -> when {
                    isPrintable(point) -> null
                    point <= 0xFF -> "\\x%02x".format(point)
                    point <= 0xFFFF -> "\\u%04x".format(point)
                    else -> "\\U%08x".format(point)
                }
            }
            if (escape == null) {
                out.add(point, text.isMarkup(index))
            } else {
                out.add(escape, text.isMarkup(index))
            }
        }
        out.add(quote.toString())
    }

    /**
     * `str.isprintable()` of one character. One that this device's Unicode does not know yet is
     * taken for a newer letter.
     */
    private fun isPrintable(point: Int): Boolean = when (Character.getType(point).toByte()) {
        Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE -> false
        Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR -> false
        Character.SPACE_SEPARATOR -> point == ' '.code
        else -> true
    }

    /** `json.dumps(value, ensure_ascii=False, indent=indent)`; null [indent] is one line. */
    fun json(value: Value, indent: String?): Text =
        TextBuilder().also { json(value, indent, "\n", it) }.build()

    private fun json(value: Value, indent: String?, line: String, out: TextBuilder) {
        val inner = if (indent == null) line else line + indent
        when (value) {
            None -> out.add("null")
            is Bool -> out.add(if (value.value) "true" else "false")
            is Num -> out.add(value.long.toString())
            is Text -> jsonText(value, out)
            is Dict -> block(out, "{", value.entries.entries, "}", indent, line) { (key, item) ->
                jsonKey(key, out)
                out.add(": ")
                json(item, indent, inner, out)
            }
            is Sequence -> {
                if (value.kind == Sequence.Kind.RANGE) fail("a range is not JSON")
                block(out, "[", value.items, "]", indent, line) { json(it, indent, inner, out) }
            }
            is Undefined, is View, is Cursor, is Namespace, is Loop ->
                fail("a value of the type ${value.type} is not JSON")
        }
    }

    private inline fun <T> block(
        out: TextBuilder,
        open: String,
        items: Collection<T>,
        close: String,
        indent: String?,
        line: String,
        write: (T) -> Unit,
    ) {
        out.add(open)
        items.forEachIndexed { index, item ->
            if (index > 0) out.add(if (indent == null) ", " else ",")
            if (indent != null) out.add(line + indent)
            write(item)
        }
        if (indent != null && items.isNotEmpty()) out.add(line)
        out.add(close)
    }

    private fun jsonKey(key: Value, out: TextBuilder) {
        when (key) {
            is Text -> jsonText(key, out)
            is Number, None -> {
                out.add("\"")
                json(key, null, "", out)
                out.add("\"")
            }
            else -> fail("a key of the type ${key.type} is not JSON")
        }
    }

    private fun jsonText(text: Text, out: TextBuilder) {
        out.add("\"")
        for (index in 0 until text.length) {
            val escape = when (val point = text[index]) {
                '"'.code -> "\\\""
                '\\'.code -> "\\\\"
                '\n'.code -> "\\n"
                '\r'.code -> "\\r"
                '\t'.code -> "\\t"
                '\b'.code -> "\\b"
                '\u000C'.code -> "\\f"
                in 0..0x1F -> "\\u%04x".format(point)
                else -> null
            }
            if (escape == null) {
                out.add(text[index], text.isMarkup(index))
            } else {
                out.add(escape, text.isMarkup(index))
            }
        }
        out.add("\"")
    }
}
