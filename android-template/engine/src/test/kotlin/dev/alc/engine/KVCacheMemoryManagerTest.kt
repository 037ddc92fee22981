package dev.alc.engine

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
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
    fun `counts agree with a plain model of them under random use`() {
        val random = Random(1)
        val memory = manager(tokens = 320, sessions = 5)
        val pages = HashMap<Any, Int>()
        val busy = HashSet<Any>()
        var peak = 0
        repeat(5000) {
            val owner = "owner ${random.nextInt(8)}"
            when (random.nextInt(4)) {
                0, 1 -> {
                    val tokens = random.nextInt(1, 200)
                    try {
                        memory.reserve(owner, tokens).forEach {
                            assertTrue(it !in busy && it != owner)
                            pages.remove(it)
                        }
                        pages[owner] = (tokens + 15) / 16
                        busy += owner
                    } catch (refused: CacheBudgetException) {
                        val held = pages.filterKeys { it in busy && it != owner }
                        assertTrue(held.values.sum() + (tokens + 15) / 16 > 20 || held.size >= 5)
                    }
                }
                2 -> if (owner in pages) {
                    val tokens = random.nextInt(0, pages.getValue(owner) * 16 + 1)
                    memory.idle(owner, tokens)
                    pages[owner] = (tokens + 15) / 16
                    busy -= owner
                }
                else -> {
                    memory.release(owner)
                    pages -= owner
                    busy -= owner
                }
            }
            peak = maxOf(peak, pages.values.sum())
            val counters = memory.counters()
            assertEquals(pages.values.sum() * 16 * 23_040L, counters.usedBytes)
            assertEquals(pages.size, counters.owners)
            assertTrue(counters.usedBytes <= counters.budgetBytes)
        }
        assertEquals(peak * 16 * 23_040L, memory.counters().peakBytes)
    }
}
