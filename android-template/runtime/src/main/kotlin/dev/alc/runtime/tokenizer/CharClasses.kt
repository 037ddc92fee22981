package dev.alc.runtime.tokenizer

/**
 * The classes of characters that the tokenizer was trained with, looked up in constant time.
 * They come from its file, since each Java and each Android has another version of Unicode.
 *
 * @param runs first code point shifted left by 8, with the class in the low byte, rising.
 */
internal class CharClasses(runs: IntArray) {
    private val pages: Array<ByteArray>

    init {
        val uniform = HashMap<Byte, ByteArray>()
        var run = -1
        pages = Array(POINTS shr PAGE_BITS) { page ->
            val classes = ByteArray(1 shl PAGE_BITS) { index ->
                val point = (page shl PAGE_BITS) + index
                while (run + 1 < runs.size && runs[run + 1] ushr 8 <= point) run++
                if (run < 0) 0 else runs[run].toByte()
            }
            // Most pages are all of one class; they share their memory.
            if (classes.all { it == classes[0] }) uniform.getOrPut(classes[0]) { classes } else classes
        }
    }

    /** The class of [point]: one of the constants, with [ISOLATED] added where it applies. */
    fun of(point: Int): Int = pages[point shr PAGE_BITS][point and PAGE_MASK].toInt()

    companion object {
        const val OTHER = 0
        const val LETTER = 1
        const val NUMBER = 2
        const val SPACE = 3

        /** The character is a piece of its own, whatever stands around it. */
        const val ISOLATED = 4
        const val KIND = 3

        private const val POINTS = 0x110000
        private const val PAGE_BITS = 8
        private const val PAGE_MASK = (1 shl PAGE_BITS) - 1
    }
}
