package dev.alc.runtime

import dev.alc.engine.CacheBudgetException
import dev.alc.engine.KVCacheMemoryManager
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadedModel
import dev.alc.engine.ModelSession
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test
import java.io.File
import kotlin.random.Random

/** What is counted of the key/value cache, beside what the native side really takes for it. */
class CacheAccountingTest {
    @Test
    fun `a filled pool takes as much memory as it counts`() {
        assumeTrue("this system does not tell what is in memory", File("/proc/self/pagemap").canRead())
        val loader = FilledCache::class.java.classLoader
        assumeTrue("these classes are no class path of a JVM", loader === ClassLoader.getSystemClassLoader())
        val bytes = FilledCache.measure()
        val ratio = bytes.taken.toDouble() / bytes.counted
        assertTrue("${bytes.taken} of ${bytes.counted} bytes, $ratio", ratio in 0.95..1.05)
    }

    @Test
    fun `the pages that are counted are those that the cache has given away`() {
        val options = LoadOptions(contextTokens = CAPACITY, maxSessions = OWNERS + PROBES)
        TestFiles.open(options = options).use { model ->
            val memory = KVCacheMemoryManager(model.info.kv, model.cache)
            val sessions = HashMap<Any, ModelSession>()
            val random = Random(3)
            repeat(60) {
                change(model, memory, sessions, random)
                val pageBytes = memory.bytesFor(1)
                val counted = memory.counters().usedBytes / pageBytes
                // The pool's own extra page is among its bytes, and free.
                assertEquals(model.cache.allocatedBytes / pageBytes - counted, freePages(model))
            }
            assertTrue(memory.counters().evictions > 0)
        }
    }

    /** One owner computes, forgets a part or leaves, as the engine lets conversations do. */
    private fun change(
        model: LoadedModel,
        memory: KVCacheMemoryManager,
        sessions: HashMap<Any, ModelSession>,
        random: Random,
    ) {
        val owner = random.nextInt(OWNERS)
        val session = sessions[owner]
        when (random.nextInt(4)) {
            0, 1 -> {
                val length = session?.length ?: 0
                val wanted = minOf(length + random.nextInt(1, CAPACITY / 2), model.info.contextWindow, CAPACITY)
                memory.reserve(owner, wanted).forEach { sessions.remove(it)!!.close() }
                val own = session ?: model.openSession().also { sessions[owner] = it }
                val count = minOf(wanted - length, model.info.prefillChunk)
                if (count > 0) own.prefill(IntArray(count))
                memory.idle(owner, own.length)
            }
            2 -> if (session != null) {
                session.trim(random.nextInt(session.length + 1))
                memory.idle(owner, session.length)
            }
            else -> {
                memory.release(owner)
                sessions.remove(owner)?.close()
            }
        }
    }

    /** How many pages other sessions can still get. */
    private fun freePages(model: LoadedModel): Long {
        val page = IntArray(model.info.kv.pageTokens)
        var free = 0L
        val probes = List(PROBES) { model.openSession() }
        try {
            for (probe in probes) {
                while (probe.length + page.size <= CAPACITY) {
                    probe.prefill(page)
                    free++
                }
            }
        } catch (_: CacheBudgetException) {
            // There are no more.
        }
        probes.forEach { it.close() }
        return free
    }

    private companion object {
        const val CAPACITY = 160
        const val OWNERS = 5
        const val PROBES = 2
    }
}
