package dev.alc.engine

/**
 * The largest of a vocabulary's scores at each place of a row, as if they stood in rows of
 * [PLACES] below each other: id 1 and id 1 + [PLACES] are at the same place.
 *
 * Places do not wait for each other, so that a processor compares several at once; one number for
 * all would be a chain of comparisons. They lead to the best of all, and to the places where the next
 * best stand.
 */
internal class Tops(private val vocabSize: Int) {
    /** By place: the largest score, NaN if there is one among them. */
    val values = FloatArray(minOf(PLACES, vocabSize))

    /** The largest of all, NaN if there is one. */
    val largest: Float
        get() {
            var largest = Float.NEGATIVE_INFINITY
            for (value in values) largest = maxOf(largest, value)
            return largest
        }

    fun clear(): Unit = values.fill(Float.NEGATIVE_INFINITY)

    /** Counts the first [count] scores of [row] in; from its start, or they are compared one by one. */
    fun raise(row: FloatArray, count: Int) {
        val values = values
        for (place in 0 until count) values[place] = maxOf(values[place], row[place])
    }

    /** The first id that has the [largest] score, which is a number, among the [scores]. */
    inline fun first(scores: (Int) -> Float): Int {
        val top = largest
        var first = vocabSize
        for (place in values.indices) {
            if (values[place] != top) continue
            var id = place
            while (scores(id) != top) id += PLACES
            first = minOf(first, id)
        }
        return first
    }

    companion object {
        /** Two rows fit a processor's first cache. */
        const val PLACES: Int = 1024
    }
}
