package dev.alc.runtime.template

/** What Python's operators and Jinja's lookups do. All fail where those would raise. */
internal object Operations {
    fun truth(value: Value): Boolean = when (value) {
        is Undefined, None -> false
        is Number -> value.long != 0L
        is Text -> value.length > 0
        is Sequence -> value.items.isNotEmpty()
        is Dict -> value.entries.isNotEmpty()
        is View -> value.items.isNotEmpty()
        is Cursor, is Namespace, is Loop -> true
    }

    /** The items of what Python can iterate, or null. */
    fun iteratorOf(value: Value): Iterator<Value>? = when (value) {
        is Cursor -> value.iterator
        else -> itemsOf(value)?.iterator()
    }

    fun iterate(value: Value): Iterator<Value> =
        iteratorOf(value) ?: fail("a value of the type ${value.type} cannot be iterated")

    /** The items of what Python can measure and go through backwards, or null. */
    fun itemsOf(value: Value): List<Value>? = when (value) {
        is Text -> List(value.length) { value.slice(it, it + 1) }
        is Sequence -> value.items
        is View -> value.items
        is Dict -> value.entries.keys.toList()
        is Undefined -> emptyList()
        is Number, None, is Cursor, is Namespace, is Loop -> null
    }

    /** `len(value)`. */
    fun length(value: Value): Int = when (value) {
        is Text -> value.length
        else -> itemsOf(value)?.size ?: fail("a value of the type ${value.type} has no length")
    }

    /** `needle in value`. */
    fun contains(value: Value, needle: Value): Boolean = when (value) {
        is Text -> value.indexOf(text(needle)) >= 0
        is Dict -> hashable(needle) in value.entries
        else -> {
            val items = iterate(value)
            var found = false
            while (!found && items.hasNext()) found = items.next() == needle
            found
        }
    }

    /** The sign of a comparison by `<`. */
    fun compare(left: Value, right: Value): Int = when {
        left is Number && right is Number -> left.long.compareTo(right.long)
        left is Text && right is Text -> left.compareTo(right)
        left is Sequence && right is Sequence && left.kind == right.kind &&
            left.kind != Sequence.Kind.RANGE -> {
            val different = left.items.zip(right.items).firstOrNull { (a, b) -> a != b }
            if (different == null) {
                left.items.size.compareTo(right.items.size)
            } else {
                compare(different.first, different.second)
            }
        }
        else -> mismatch("compare", left, right)
    }

    fun add(left: Value, right: Value): Value = when {
        left is Number && right is Number -> exact { Math.addExact(left.long, right.long) }
        left is Text && right is Text -> left + right
        left is Sequence && right is Sequence && left.kind == right.kind &&
            left.kind != Sequence.Kind.RANGE -> Sequence(left.kind, left.items + right.items)
        else -> mismatch("add", left, right)
    }

    fun subtract(left: Value, right: Value): Value =
        arithmetic("subtract", left, right, Math::subtractExact)

    fun multiply(left: Value, right: Value): Value = when {
        left is Number && right is Number -> exact { Math.multiplyExact(left.long, right.long) }
        right is Number -> repeat(left, right)
        left is Number -> repeat(right, left)
        else -> mismatch("multiply", left, right)
    }

    private fun repeat(value: Value, count: Number): Value {
        val times = count.long.coerceAtLeast(0)
        return when {
            value is Text -> {
                val result = TextBuilder()
                if (value.length > 0) for (round in 1..times) result.add(value)
                result.build()
            }
            value is Sequence && value.kind != Sequence.Kind.RANGE -> {
                if (value.items.size * times.coerceAtMost(MAX_ITEMS + 1L) > MAX_ITEMS) {
                    fail("a collection has more than $MAX_ITEMS items")
                }
                Sequence(value.kind, List(times.toInt()) { value.items }.flatten())
            }
            else -> mismatch("multiply", value, count)
        }
    }

    fun floorDivide(left: Value, right: Value): Value =
        arithmetic("divide", left, right, Math::floorDiv)

    fun modulo(left: Value, right: Value): Value {
        if (left is Text) fail("the formatting of a str with '%' is not supported")
        return arithmetic("take the remainder of", left, right, Math::floorMod)
    }

    fun negate(value: Value): Value =
        if (value is Number) exact { Math.negateExact(value.long) } else mismatch("negate", value)

    private inline fun arithmetic(
        verb: String,
        left: Value,
        right: Value,
        operation: (Long, Long) -> Long,
    ): Value {
        if (left !is Number || right !is Number) mismatch(verb, left, right)
        return exact { operation(left.long, right.long) }
    }

    private inline fun exact(compute: () -> Long): Num = try {
        Num(compute())
    } catch (problem: ArithmeticException) {
        fail("a division by zero or a number that is too large (${problem.message})")
    }

    private fun mismatch(verb: String, vararg operands: Value): Nothing {
        operands.filterIsInstance<Undefined>().firstOrNull()?.fail()
        fail("cannot $verb ${operands.joinToString(" and ") { it.type }}")
    }

    /** `value[from:until:step]` with absent bounds null. */
    fun slice(value: Value, from: Value?, until: Value?, step: Value?): Value {
        val size = when (value) {
            is Text -> value.length
            is Sequence -> value.items.size
            is Undefined -> value.fail()
            else -> fail("a value of the type ${value.type} cannot be sliced")
        }
        val indices = indices(size, bound(from), bound(until), bound(step) ?: 1)
        return if (value is Text) {
            value.pick(indices)
        } else {
            value as Sequence
            Sequence(value.kind, indices.map { value.items[it] })
        }
    }

    private fun bound(value: Value?): Long? = when (value) {
        null, None -> null
        is Number -> value.long
        else -> fail("a slice has bounds of the type ${value.type}")
    }

    /** Which indices a slice has, as Python's `slice.indices()`. */
    private fun indices(size: Int, from: Long?, until: Long?, step: Long): IntArray {
        if (step == 0L) fail("slice step cannot be zero")
        val lowest = if (step > 0) 0L else -1L
        val highest = if (step > 0) size.toLong() else size - 1L
        fun place(bound: Long) =
            (if (bound < 0) bound + size else bound).coerceIn(lowest, highest)
        val first = from?.let(::place) ?: if (step > 0) lowest else highest
        val end = until?.let(::place) ?: if (step > 0) highest else lowest
        // No text is as long as this, so a longer step changes nothing and cannot overflow.
        val stride = step.coerceIn(-Int.MAX_VALUE.toLong(), Int.MAX_VALUE.toLong())
        val count = if (stride > 0) {
            (end - first + stride - 1) / stride
        } else {
            (first - end - stride - 1) / -stride
        }
        return IntArray(count.coerceAtLeast(0).toInt()) { (first + it * stride).toInt() }
    }

    /** [value] if a `dict` can have it as a key. */
    fun hashable(value: Value): Value {
        if (!isHashable(value)) fail("a ${value.type} cannot be a key")
        return value
    }

    fun isHashable(value: Value): Boolean = when (value) {
        is Dict, is View -> false
        is Sequence -> value.kind != Sequence.Kind.LIST && value.items.all(::isHashable)
        else -> true
    }

    fun text(value: Value): Text = when (value) {
        is Text -> value
        is Undefined -> value.fail()
        else -> fail("a str is needed, not ${value.type}")
    }

    fun int(value: Value): Long = when (value) {
        is Number -> value.long
        is Undefined -> value.fail()
        else -> fail("an int is needed, not ${value.type}")
    }
}
