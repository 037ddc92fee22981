package dev.alc.runtime.template

import dev.alc.engine.MarkedText

/**
 * A string that knows which of its parts the template wrote. Templates build prompts from their
 * own markup and from what users say; keeping the two apart through every operation is what lets
 * a user's text look like markup without being it.
 *
 * @property markup ranges of [value] in rising order that neither overlap nor touch.
 */
internal class Text(val value: String, private val markup: List<IntRange>) {
    val length: Int
        get() = value.length

    fun marked(): MarkedText = MarkedText(value, markup)

    fun substring(from: Int, until: Int): Text {
        if (from == 0 && until == value.length) return this
        val kept = markup.filter { it.first < until && it.last >= from }
            .map { maxOf(it.first, from) - from..minOf(it.last, until - 1) - from }
        return Text(value.substring(from, until), kept)
    }

    /** Another string made of this one as a whole; markup only if all of this is. */
    fun mapped(change: (String) -> String): Text {
        val all = value.isNotEmpty() && markup.size == 1 && markup[0] == value.indices
        return if (all) markup(change(value)) else plain(change(value))
    }

    override fun equals(other: Any?): Boolean = other is Text && other.value == value

    override fun hashCode(): Int = value.hashCode()

    override fun toString(): String = value

    /** Joins texts. */
    class Builder {
        private val value = StringBuilder()
        private val markup = mutableListOf<IntRange>()

        fun append(text: Text): Builder {
            for (range in text.markup) {
                val start = range.first + value.length
                val end = range.last + value.length
                val last = markup.lastOrNull()
                if (last != null && last.last + 1 == start) {
                    markup[markup.lastIndex] = last.first..end
                } else {
                    markup += start..end
                }
            }
            value.append(text.value)
            return this
        }

        fun build(): Text = Text(value.toString(), markup.toList())
    }

    companion object {
        val EMPTY = Text("", emptyList())

        fun plain(value: String): Text = Text(value, emptyList())

        fun markup(value: String): Text =
            Text(value, if (value.isEmpty()) emptyList() else listOf(value.indices))
    }
}
