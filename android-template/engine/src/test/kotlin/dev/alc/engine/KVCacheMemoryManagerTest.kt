package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.PropTestConfig
import io.kotest.property.arbitrary.int
import io.kotest.property.arbitrary.long
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test
import kotlin.random.Random

class KVCacheMemoryManagerTest {
    // 2 * 30 * 3 * 64 * 2 bytes: SmolLM2-135M with a float16 cache.
    private val shape = KvShape(layers = 30, kvHeads = 3, headDim = 64, bytesPerElement = 2, pageTokens = 16)

    private fun manager(tokens: Int = 160, sessions: Int = 4, budget: Long = Long.MAX_VALUE) =
        KVCacheMemoryManager(shape, CachePool(tokens, sessions, tokens * shape.bytesPerToken), budget)

    @Test
    fun `bytes follow from the shape and count whole pages`() {
        assertEquals(23_040, shape.bytesPerToken)
        assertEquals(16 * 23_040L, manager().bytesFor(1))
        assertEquals(16 * 23_040L, manager().bytesFor(16))
        assertEquals(32 * 23_040L, manager().bytesFor(17))
        assertEquals(0, manager().bytesFor(0))
    }

    @Test
    fun `the longest unused idle owner goes first`() {
        val memory = manager(tokens = 96)
        for (owner in listOf("a", "b", "c")) {
            memory.reserve(owner, 32)
            memory.idle(owner, 32)
        }
        memory.reserve("a", 32)
        memory.idle("a", 32)
        assertEquals(listOf("b"), memory.reserve("d", 20))
        assertEquals(listOf("c", "a"), memory.reserve("e", 64))
        assertEquals(3, memory.counters().evictions)
    }

    @Test
    fun `busy owners are never evicted`() {
        val memory = manager(tokens = 64)
        memory.reserve("busy", 48)
        assertThrows(CacheBudgetException::class.java) { memory.reserve("other", 32) }
        assertEquals(1, memory.counters().refusals)
        assertEquals(1, memory.counters().owners)
        memory.idle("busy", 10)
        assertEquals(emptyList<Any>(), memory.reserve("other", 32))
    }

    @Test
    fun `sessions are a limit too`() {
        val memory = manager(sessions = 2)
        memory.reserve("a", 1)
        memory.idle("a", 1)
        memory.reserve("b", 1)
        assertEquals(listOf("a"), memory.reserve("c", 1))
    }

    @Test
    fun `a budget below the pool is kept`() {
        val memory = manager(tokens = 1600, budget = 3 * 16 * 23_040L + 5)
        assertEquals(48, memory.capacityTokens)
        assertThrows(CacheBudgetException::class.java) { memory.reserve("a", 49) }
        memory.reserve("a", 48)
    }

    @Test
    fun `more tokens than any memory holds are refused`() {
        for (pageTokens in listOf(1, 16)) {
            val paged = shape.copy(pageTokens = pageTokens)
            val memory = KVCacheMemoryManager(paged, CachePool(160, 4, 160 * shape.bytesPerToken))
            memory.reserve("a", 16)
            assertThrows(CacheBudgetException::class.java) { memory.reserve("b", Int.MAX_VALUE) }
            assertEquals(1, memory.counters().owners)
        }
    }

    @Test
    fun `a refusal changes nothing, not even who was used last`() {
        val memory = manager(tokens = 64)
        for (owner in listOf("a", "b")) {
            memory.reserve(owner, 16)
            memory.idle(owner, 16)
        }
        memory.reserve("busy", 16)
        assertThrows(CacheBudgetException::class.java) { memory.reserve("a", 64) }
        assertEquals(listOf("a"), memory.reserve("c", 32))
    }

    /** The same by the shortest way: who holds what, the longest unused first. */
    private class PlainModel(private val pages: Int, private val sessions: Int) {
        class Holding(val owner: Int, val pages: Int, val busy: Boolean)

        var holdings = listOf<Holding>()
        var peak = 0
        var evictions = 0L
        var refusals = 0L

        fun reserve(owner: Int, wanted: Int): List<Int>? {
            val others = holdings.filter { it.owner != owner }
            val idle = others.filter { !it.busy }
            val fewest = (0..idle.size).firstOrNull { leave ->
                val stay = others - idle.take(leave).toSet()
                stay.sumOf { it.pages } + wanted <= pages && stay.size < sessions
            }
            if (fewest == null) {
                refusals++
                return null
            }
            val leaving = idle.take(fewest)
            evictions += fewest
            holdings = others - leaving.toSet() + Holding(owner, wanted, busy = true)
            peak = maxOf(peak, holdings.sumOf { it.pages })
            return leaving.map { it.owner }
        }

        fun idle(owner: Int, left: Int) {
            holdings = holdings.filter { it.owner != owner } + Holding(owner, left, busy = false)
        }

        fun release(owner: Int) {
            holdings = holdings.filter { it.owner != owner }
        }

        fun releaseIdle(): List<Int> {
            val (stay, leave) = holdings.partition { it.busy }
            holdings = stay
            evictions += leave.size
            return leave.map { it.owner }
        }
    }

    @Test
    fun `it does what a plain model of it does, under any use`(): Unit = runBlocking {
        val config = PropTestConfig(seed = 2, iterations = 300)
        checkAll(config, Arb.long(), Arb.int(1..6), Arb.int(1..24)) { seed, sessions, pages ->
            val random = Random(seed)
            val memory = manager(tokens = pages * 16, sessions = sessions)
            val plain = PlainModel(pages, sessions)
            repeat(60) {
                val owner = random.nextInt(7)
                val held = plain.holdings.find { it.owner == owner }
                when (random.nextInt(6)) {
                    0, 1, 2 -> {
                        val tokens = random.nextInt(pages * 16 + 20)
                        val expected = plain.reserve(owner, (tokens + 15) / 16)
                        val actual = try {
                            memory.reserve(owner, tokens)
                        } catch (_: CacheBudgetException) {
                            null
                        }
                        assertEquals(expected, actual)
                    }
                    3 -> if (held != null) {
                        val left = random.nextInt(held.pages * 16 + 1)
                        memory.idle(owner, left)
                        plain.idle(owner, (left + 15) / 16)
                    }
                    4 -> {
                        memory.release(owner)
                        plain.release(owner)
                    }
                    else -> if (random.nextInt(4) == 0) assertEquals(plain.releaseIdle(), memory.releaseIdle())
                }
                val bytes = memory.bytesFor(1)
                val expected = KvCounters(
                    plain.holdings.sumOf { it.pages } * bytes, plain.peak * bytes, pages * bytes,
                    plain.holdings.size, plain.evictions, plain.refusals,
                )
                assertEquals(expected, memory.counters())
            }
        }
    }
}
