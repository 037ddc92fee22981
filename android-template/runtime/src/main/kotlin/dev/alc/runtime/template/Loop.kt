package dev.alc.runtime.template

/**
 * Jinja's `loop`, which is also what a `for` statement takes its items from. It looks ahead only
 * when the template asks for something that needs it, because looking may run the loop's filter.
 *
 * @param size the number of items, null if only going through them tells.
 */
internal class Loop(private var items: Iterator<Value>, private var size: Int?) : Value {
    private var index0 = -1
    private var previous: Value? = null
    private var current: Value? = null
    private var ahead: Value? = null

    override val type: String
        get() = "loop"

    /** Goes on to the next item, null after the last. */
    fun advance(): Value? {
        val item = peek() ?: return null
        ahead = null
        previous = current
        current = item
        index0++
        return item
    }

    private fun peek(): Value? {
        if (ahead == null && items.hasNext()) ahead = items.next()
        return ahead
    }

    private fun length(): Int = size ?: run {
        val rest = items.asSequence().toList()
        items = rest.iterator()
        (rest.size + index0 + 1 + if (ahead == null) 0 else 1).also { size = it }
    }

    fun attribute(name: String): Value = when (name) {
        "index" -> num(index0 + 1)
        "index0" -> num(index0)
        "revindex" -> num(length() - index0)
        "revindex0" -> num(length() - index0 - 1)
        "first" -> Bool.of(index0 == 0)
        "last" -> Bool.of(peek() == null)
        "length" -> num(length())
        "depth" -> num(1)
        "depth0" -> num(0)
        "previtem" -> previous ?: Undefined("there is no previous item")
        "nextitem" -> peek() ?: Undefined("there is no next item")
        else -> Undefined("a loop has no attribute '$name'")
    }

    private fun num(value: Int) = Num(value.toLong())
}
