package dev.alc.engine

/**
 * What a [KVCacheMemoryManager] has counted.
 *
 * @property usedBytes bytes of the pages that conversations hold now.
 * @property peakBytes the largest [usedBytes] so far.
 * @property budgetBytes bytes that may be used.
 * @property evictions caches of idle conversations that were dropped for others.
 * @property refusals requests for which there was no room.
 */
public data class KvCounters(
    public val usedBytes: Long,
    public val peakBytes: Long,
    public val budgetBytes: Long,
    public val owners: Int,
    public val evictions: Long,
    public val refusals: Long,
)

/**
 * Budgets the key/value cache of one model among its conversations.
 *
 * It counts in whole pages, as the cache does, and in bytes from the shape of the model. Room is
 * promised before anything is computed; where there is none, the caches of idle owners are
 * dropped, the longest unused first. It only counts: whoever asks for room must close the
 * sessions of the owners that it returns. Pages that a backend shares between a session and its
 * forks count for each of them, as each may come to need its own. Not safe for use from several
 * threads; the engine calls it on its decode thread.
 *
 * @param shape the model's, which gives bytes for each token.
 * @param pool what the backend has reserved.
 * @param budgetBytes the most to use, if less than the pool.
 */
public class KVCacheMemoryManager(
    private val shape: KvShape,
    private val pool: CachePool,
    budgetBytes: Long = Long.MAX_VALUE,
) {
    private class Holding(val pages: Int, val busy: Boolean)

    private val pageBytes = shape.bytesPerToken * shape.pageTokens
    private val totalPages =
        minOf((pool.capacityTokens / shape.pageTokens).toLong(), budgetBytes / pageBytes).toInt()

    // In order of use: the first entry is the longest unused.
    private val holdings = LinkedHashMap<Any, Holding>()
    private var usedPages = 0
    private var peakPages = 0
    private var evictions = 0L
    private var refusals = 0L

    /** The most tokens that one owner can hold when nobody else holds any. */
    public val capacityTokens: Int
        get() = totalPages * shape.pageTokens

    /** Bytes that [tokens] take, in whole pages. */
    public fun bytesFor(tokens: Int): Long = pagesFor(tokens) * pageBytes

    /**
     * Promises [owner] room for [tokens] in all and marks it busy. A smaller number than it holds
     * gives the rest back.
     *
     * @return the owners whose caches had to go; the caller must close their sessions before it
     *   uses the room.
     * @throws CacheBudgetException if there is no room even then; nothing has changed.
     */
    public fun reserve(owner: Any, tokens: Int): List<Any> {
        val wanted = pagesFor(tokens)
        val own = holdings[owner]
        var missing = usedPages - (own?.pages ?: 0) + wanted.toLong() - totalPages
        var sessions = holdings.size + (if (own == null) 1 else 0) - pool.maxSessions
        val leaving = mutableListOf<Any>()
        for ((other, holding) in holdings) {
            if (missing <= 0 && sessions <= 0) break
            if (other == owner || holding.busy) continue
            leaving += other
            missing -= holding.pages
            sessions--
        }
        if (missing > 0 || sessions > 0) {
            refusals++
            throw CacheBudgetException(
                "the cache has no room for $tokens tokens (${bytesFor(tokens)} bytes): " +
                    "${usedPages * pageBytes} of ${totalPages * pageBytes} bytes are in use " +
                    "by ${holdings.size} of ${pool.maxSessions} sessions",
            )
        }
        for (other in leaving) release(other)
        evictions += leaving.size
        use(owner, Holding(wanted, busy = true))
        peakPages = maxOf(peakPages, usedPages)
        return leaving
    }

    /** Marks [owner] idle with [tokens] left in its cache; from now on it may be evicted. */
    public fun idle(owner: Any, tokens: Int) {
        if (owner in holdings) use(owner, Holding(pagesFor(tokens), busy = false))
    }

    /** Forgets what [owner] holds. */
    public fun release(owner: Any) {
        usedPages -= holdings.remove(owner)?.pages ?: return
    }

    /** Forgets every idle owner and returns them; the caller must close their sessions. */
    public fun releaseIdle(): List<Any> {
        val leaving = holdings.filterValues { !it.busy }.keys.toList()
        leaving.forEach(::release)
        evictions += leaving.size
        return leaving
    }

    /** What has been counted so far. */
    public fun counters(): KvCounters = KvCounters(
        usedBytes = usedPages * pageBytes,
        peakBytes = peakPages * pageBytes,
        budgetBytes = totalPages * pageBytes,
        owners = holdings.size,
        evictions = evictions,
        refusals = refusals,
    )

    /** Makes [holding] what [owner] holds, and [owner] the one that was used last. */
    private fun use(owner: Any, holding: Holding) {
        release(owner)
        holdings[owner] = holding
        usedPages += holding.pages
    }

    private fun pagesFor(tokens: Int): Int =
        tokens / shape.pageTokens + (if (tokens % shape.pageTokens > 0) 1 else 0)
}
