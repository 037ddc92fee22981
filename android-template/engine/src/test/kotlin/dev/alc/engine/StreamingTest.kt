package dev.alc.engine

import dev.alc.engine.GenerationEvent.Finished
import dev.alc.engine.GenerationEvent.Tokens
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

@OptIn(ExperimentalCoroutinesApi::class)
class StreamingTest {
    private val end = Finished(FinishReason.STOP, Usage(0, 0, 0), 0)

    private fun token(index: Int) =
        Tokens(index, intArrayOf(index), longArrayOf(index * 10L), "<$index>")

    /** [count] tokens, one every [everyMillis], through a manager with [policy]. */
    private fun TestScope.tokens(
        policy: StreamingPolicy,
        count: Int,
        everyMillis: Long,
        sent: MutableList<Long> = mutableListOf(),
    ): Flow<GenerationEvent> = flow {
        val manager = BackpressureStreamingManager(policy) { currentTime * 1_000_000 }
        manager.stream(this, StandardTestDispatcher(testScheduler)) { events ->
            repeat(count) {
                if (everyMillis > 0) delay(everyMillis)
                events.send(token(it))
                sent += currentTime
            }
            events.sendLast(end)
        }
    }

    private fun check(count: Int, events: List<GenerationEvent>) {
        val tokens = events.filterIsInstance<Tokens>()
        assertEquals((0 until count).toList(), tokens.flatMap { it.ids.toList() })
        assertEquals((0 until count).map { it * 10L }, tokens.flatMap { it.nanos.toList() })
        assertEquals((0 until count).joinToString("") { "<$it>" }, tokens.joinToString("") { it.text })
        assertTrue(tokens.all { it.ids.isEmpty() || it.first == it.ids[0] })
        assertEquals(end, events.last())
    }

    @Test
    fun `a slow collector slows the producer and loses nothing`() = runTest {
        val sent = mutableListOf<Long>()
        val events = mutableListOf<GenerationEvent>()
        tokens(StreamingPolicy.Slow(capacity = 4), 50, everyMillis = 0, sent).collect {
            delay(100)
            events += it
        }
        check(50, events)
        assertEquals(51, events.size)
        assertTrue("sent ${sent.last()} ms", sent.last() >= 44 * 100)
    }

    @Test
    fun `waiting tokens join for a slow collector`() = runTest {
        val events = mutableListOf<GenerationEvent>()
        tokens(StreamingPolicy.Coalesce(), 100, everyMillis = 10).collect {
            delay(200)
            events += it
        }
        check(100, events)
        assertTrue("${events.size} events", events.size in 5..9)
    }

    @Test
    fun `joined tokens never become more than allowed`() = runTest {
        val events = mutableListOf<GenerationEvent>()
        tokens(StreamingPolicy.Coalesce(maxTokens = 7), 100, everyMillis = 0).collect {
            delay(1000)
            events += it
        }
        check(100, events)
        assertTrue(events.filterIsInstance<Tokens>().all { it.ids.size <= 7 })
    }

    @Test
    fun `text comes at the asked rate, the first at once and the last without delay`() = runTest {
        val times = mutableListOf<Long>()
        val events = mutableListOf<GenerationEvent>()
        tokens(StreamingPolicy.Coalesce(intervalMillis = 100), 100, everyMillis = 10).collect {
            times += currentTime
            events += it
        }
        check(100, events)
        assertEquals(10L, times.first())
        val gaps = times.dropLast(2).zipWithNext { a, b -> b - a }
        assertTrue("$gaps", gaps.all { it in 100..111 })
        assertTrue("${times.last()}", times.last() <= 1001)
    }

    @Test
    fun `a producer that fails reaches the collector after what it sent`() = runTest {
        val events = mutableListOf<GenerationEvent>()
        val failing = flow {
            BackpressureStreamingManager(StreamingPolicy.Slow()).stream(this, StandardTestDispatcher(testScheduler)) {
                it.send(token(0))
                delay(1)
                throw IllegalStateException("broke")
            }
        }
        val failure = runCatching { failing.collect { events += it } }.exceptionOrNull()
        assertEquals("broke", failure?.message)
        assertEquals(1, events.size)
    }

    @Test
    fun `control tokens add no text unless asked`() {
        assertEquals("", StreamingDetokenizer(ByteTokenizer).add(ScriptedModel.END))
        assertEquals("<end>", StreamingDetokenizer(ByteTokenizer, skipSpecial = false).add(ScriptedModel.END))
    }

    @Test
    fun `everything a collector needs is in the list`() = runTest {
        check(3, tokens(StreamingPolicy.Slow(), 3, 5).toList())
    }
}
