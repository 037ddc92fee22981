package dev.alc.runtime

import dev.alc.engine.CachePool
import dev.alc.engine.KvShape

/** The sizes that a [TVMModule] is opened with. */
internal data class ModelShape(
    val vocabSize: Int,
    val contextWindow: Int,
    val prefillChunk: Int,
    val maxSequences: Int,
    val capacityTokens: Int,
    val kv: KvShape,
) {
    /**
     * The pool that TVM makes of it: whole pages, and one more that it keeps for itself.
     */
    fun pool(): CachePool {
        val pages = (capacityTokens.toLong() + kv.pageTokens - 1) / kv.pageTokens
        val tokens = minOf(pages * kv.pageTokens, Int.MAX_VALUE.toLong()).toInt()
        return CachePool(tokens, maxSequences, (pages + 1) * kv.pageTokens * kv.bytesPerToken)
    }
}
