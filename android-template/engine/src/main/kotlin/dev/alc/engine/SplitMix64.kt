package dev.alc.engine

/**
 * Steele, Lea and Flood's SplitMix64: a generator whose numbers are the same on every platform,
 * which `kotlin.random.Random` does not promise.
 */
internal class SplitMix64(private var state: Long) {
    fun nextLong(): Long {
        state += -0x61c8864680b583ebL
        var mixed = state
        mixed = (mixed xor (mixed ushr 30)) * -0x40a7b892e31b1a47L
        mixed = (mixed xor (mixed ushr 27)) * -0x6b2fb644ecceee15L
        return mixed xor (mixed ushr 31)
    }

    /** From 0 until 1, of 53 random bits. */
    fun nextDouble(): Double = (nextLong() ushr 11) * (1.0 / (1L shl 53))
}
