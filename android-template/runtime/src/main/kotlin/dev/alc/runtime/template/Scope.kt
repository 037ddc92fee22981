package dev.alc.runtime.template

/**
 * One rendering: what it has written, and how much work it may still do. A template is a program
 * from elsewhere; it must not keep a phone busy for good.
 */
internal class Rendering {
    val output: TextBuilder = TextBuilder()
    private var left = WORK

    /** Counts [work]: nodes run, and characters and items that are read or made. */
    fun spend(work: Int) {
        left -= work
        if (left < 0) fail("it takes more than $WORK steps")
    }

    private companion object {
        /** Conversations that fill a context window take a hundredth of it; a phone, a second. */
        const val WORK = 100_000_000L
    }
}

/** The names that a part of the template knows. Each item of a loop has a scope of its own. */
internal class Scope(private val outer: Scope?, val rendering: Rendering) {
    private val names = HashMap<String, Value>()

    operator fun get(name: String): Value {
        var scope: Scope? = this
        while (scope != null) {
            scope.names[name]?.let { return it }
            scope = scope.outer
        }
        return Undefined("'$name' is undefined")
    }

    operator fun set(name: String, value: Value) {
        names[name] = value
    }

    fun inner(): Scope = Scope(this, rendering)
}
