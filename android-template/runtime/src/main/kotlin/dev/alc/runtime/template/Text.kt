package dev.alc.runtime.template

import dev.alc.engine.MarkedText

/**
 * A Python `str`: code points, of which each knows whether it is markup, that is, whether the
 * template wrote it. Whatever cuts or joins texts keeps that; equality ignores it.
 */
internal class Text(private val points: IntArray, private val marks: BooleanArray) : Value {
    init {
        require(points.size == marks.size)
    }

    override val type: String
        get() = "str"

    val length: Int
        get() = points.size

    operator fun get(index: Int): Int = points[index]

    fun isMarkup(index: Int): Boolean = marks[index]

    fun slice(from: Int, until: Int): Text = when {
        from >= until -> EMPTY
        from == 0 && until == length -> this
        else -> Text(points.copyOfRange(from, until), marks.copyOfRange(from, until))
    }

    /** The code points at [indices], in their order. */
    fun pick(indices: IntArray): Text = Text(
        IntArray(indices.size) { points[indices[it]] },
        BooleanArray(indices.size) { marks[indices[it]] },
    )

    /** Whether [other] stands at [at]. */
    fun holds(other: Text, at: Int): Boolean {
        if (at < 0 || at + other.length > length) return false
        for (index in 0 until other.length) {
            if (points[at + index] != other.points[index]) return false
        }
        return true
    }

    /** The first place of [other] from [from] on, or -1. */
    fun indexOf(other: Text, from: Int = 0): Int {
        for (at in from..length - other.length) if (holds(other, at)) return at
        return -1
    }

    /** Copies what lies in [from] until [until] to [at] of two arrays. */
    fun copyInto(points: IntArray, marks: BooleanArray, at: Int, from: Int, until: Int) {
        this.points.copyInto(points, at, from, until)
        this.marks.copyInto(marks, at, from, until)
    }

    operator fun plus(other: Text): Text = TextBuilder().add(this).add(other).build()

    /** As Python orders strings: by code points. */
    fun compareTo(other: Text): Int {
        for (index in 0 until minOf(length, other.length)) {
            if (points[index] != other.points[index]) return points[index] - other.points[index]
        }
        return length - other.length
    }

    override fun equals(other: Any?): Boolean = other is Text && points.contentEquals(other.points)

    override fun hashCode(): Int = points.contentHashCode()

    override fun toString(): String = String(points, 0, points.size)

    /** The text for the tokenizer. */
    fun marked(): MarkedText {
        val text = StringBuilder()
        val ranges = mutableListOf<IntRange>()
        var start = 0
        for (index in points.indices) {
            if (index == 0 || marks[index] != marks[index - 1]) start = text.length
            text.appendCodePoint(points[index])
            val ends = index == points.lastIndex || marks[index] != marks[index + 1]
            if (ends && marks[index]) ranges += start until text.length
        }
        return MarkedText(text.toString(), ranges)
    }

    companion object {
        val EMPTY: Text = markup("")

        /** A text that the template wrote. */
        fun markup(text: String): Text = of(text, true)

        /** A text that came from elsewhere. */
        fun plain(text: String): Text = of(text, false)

        private fun of(text: String, markup: Boolean): Text {
            val points = text.codePoints().toArray()
            return Text(points, BooleanArray(points.size) { markup })
        }
    }
}

/** Collects a [Text]; fails rather than grow beyond any context window. */
internal class TextBuilder {
    private var points = IntArray(INITIAL)
    private var marks = BooleanArray(INITIAL)

    var length: Int = 0
        private set

    fun add(text: Text, from: Int = 0, until: Int = text.length): TextBuilder {
        reserve(until - from)
        text.copyInto(points, marks, length, from, until)
        length += until - from
        return this
    }

    fun add(text: String, markup: Boolean = true): TextBuilder {
        text.codePoints().forEach { add(it, markup) }
        return this
    }

    fun add(point: Int, markup: Boolean) {
        reserve(1)
        points[length] = point
        marks[length++] = markup
    }

    private fun reserve(more: Int) {
        val needed = length + more
        if (needed > MAX_LENGTH) fail("a text is longer than $MAX_LENGTH characters")
        if (needed <= points.size) return
        val capacity = maxOf(needed, points.size * 2)
        points = points.copyOf(capacity)
        marks = marks.copyOf(capacity)
    }

    fun build(): Text = Text(points.copyOf(length), marks.copyOf(length))

    private companion object {
        const val INITIAL = 64
        const val MAX_LENGTH = 1 shl 22
    }
}
