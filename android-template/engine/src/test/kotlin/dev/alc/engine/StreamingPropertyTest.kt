package dev.alc.engine

import dev.alc.engine.GenerationEvent.Finished
import dev.alc.engine.GenerationEvent.Prefilled
import dev.alc.engine.GenerationEvent.Tokens
import io.kotest.property.PropTestConfig
import io.kotest.property.arbitrary.arbitrary
import io.kotest.property.checkAll
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.StandardTestDispatcher
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.currentTime
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** What holds for every pace of model and collector, in virtual time. */
@OptIn(ExperimentalCoroutinesApi::class)
class StreamingPropertyTest {
    private val prefilled = Prefilled(1, 0, 1)
    private val end = Finished(FinishReason.STOP, Usage(0, 0, 0), 0)

    /** How long the model takes for each event, in milliseconds, and the collector for each that it gets. */
    private class Pace(val policy: StreamingPolicy, val model: List<Int>, val collector: List<Int>) {
        override fun toString() = "$policy, model $model, collector $collector"
    }

    private val paces = arbitrary { source ->
        val random = source.random
        // Paces differ most in whether model or collector is the slower one, for a while.
        fun durations(): List<Int> {
            val most = listOf(0, 1, 5, 60).random(random)
            return List(random.nextInt(1, 40)) { if (random.nextInt(8) == 0) 150 else random.nextInt(most + 1) }
        }
        val policy = if (random.nextBoolean()) {
            StreamingPolicy.Slow(random.nextInt(1, 10))
        } else {
            StreamingPolicy.Coalesce(listOf(0L, 1, 16, 100).random(random), random.nextInt(1, 12))
        }
        Pace(policy, durations(), durations())
    }

    /** What one run was like: what was collected and when, and how much waited at most. */
    private class Run(val got: List<GenerationEvent>, val times: List<Long>, val sent: List<Long>, val waited: Int)

    private fun token(index: Int) = Tokens(index, intArrayOf(index), longArrayOf(index * 10L), "<$index>")

    private suspend fun TestScope.run(pace: Pace): Run {
        val got = mutableListOf<GenerationEvent>()
        val times = mutableListOf<Long>()
        val sent = mutableListOf<Long>()
        var collected = 0
        var waited = 0
        val collector = FlowCollector<GenerationEvent> { event ->
            got += event
            times += currentTime
            collected += (event as? Tokens)?.ids?.size ?: 0
            delay(pace.collector[(got.size - 1) % pace.collector.size].toLong())
        }
        BackpressureStreamingManager(pace.policy) { currentTime * NANOS }.stream(collector, dispatcher()) { events ->
            events.send(prefilled)
            for ((index, duration) in pace.model.withIndex()) {
                delay(duration.toLong())
                events.send(token(index))
                sent += currentTime
                waited = maxOf(waited, sent.size - collected)
            }
            events.sendLast(end)
        }
        return Run(got, times, sent, waited)
    }

    private fun TestScope.dispatcher() = StandardTestDispatcher(testScheduler)

    /** Virtual time belongs to a test scope, so each case has its own. */
    private fun forEveryPace(check: suspend TestScope.(Pace) -> Unit): Unit = runBlocking {
        checkAll(PropTestConfig(seed = 5, iterations = 400), paces) { pace -> runTest { check(pace) } }
    }

    @Test
    fun `what is sent arrives once, whole and in order`() = forEveryPace { pace ->
        val run = run(pace)
        val tokens = run.got.filterIsInstance<Tokens>()
        val all = pace.model.indices.toList()
        assertEquals(prefilled, run.got.first())
        assertEquals(end, run.got.last())
        assertEquals(tokens.size + 2, run.got.size)
        assertEquals(all, tokens.flatMap { it.ids.asList() })
        assertEquals(all.map { it * 10L }, tokens.flatMap { it.nanos.asList() })
        assertEquals(all.joinToString("") { "<$it>" }, tokens.joinToString("") { it.text })
        assertTrue(tokens.all { it.first == it.ids[0] })
        if (pace.policy is StreamingPolicy.Slow) assertTrue(tokens.all { it.ids.size == 1 })
    }

    @Test
    fun `no more waits than the policy allows`() = forEveryPace { pace ->
        val waited = run(pace).waited
        val most = when (pace.policy) {
            is StreamingPolicy.Slow -> pace.policy.capacity
            is StreamingPolicy.Coalesce -> pace.policy.maxTokens
        }
        assertTrue("$waited of $most", waited <= most)
    }

    @Test
    fun `text is as rare as it was asked to be, and never later`() = forEveryPace { pace ->
        val run = run(pace)
        val interval = (pace.policy as? StreamingPolicy.Coalesce)?.intervalMillis ?: 0
        val most = (pace.policy as? StreamingPolicy.Coalesce)?.maxTokens ?: Int.MAX_VALUE
        val last = run.sent.last()
        var free = 0L
        var due = 0L
        for ((index, event) in run.got.withIndex()) {
            val time = run.times[index]
            if (event is Tokens) {
                // Early only when there is room for no more or nothing more will come.
                assertTrue("$time < $due", time >= due || event.ids.size == most || time >= last)
                // At once when a token was there, the collector free and the interval over; waiting
                // goes by whole milliseconds and may take one more.
                val possible = maxOf(run.sent[event.first], free, due)
                assertTrue("$time > $possible", time <= possible + 1)
                due = time + interval
            }
            free = time + pace.collector[index % pace.collector.size]
        }
    }

    @Test
    fun `a collector that leaves takes the model with it`() = forEveryPace { pace ->
        var ended = false
        var collected = 0
        val collecting = launch(dispatcher()) {
            val collector = FlowCollector<GenerationEvent> {
                collected++
                delay(pace.collector[collected % pace.collector.size].toLong())
            }
            BackpressureStreamingManager(pace.policy) { currentTime * NANOS }.stream(collector, dispatcher()) { events ->
                try {
                    var index = 0
                    while (true) {
                        delay(pace.model[index % pace.model.size] + 1L)
                        events.send(token(index++))
                    }
                } finally {
                    ended = true
                }
            }
        }
        delay(LONG_MILLIS)
        assertTrue(!ended && collected > 0)
        collecting.cancel()
        collecting.join()
        assertTrue(ended)
    }

    @Test
    fun `a collector that throws ends the model, and its exception arrives`() = forEveryPace { pace ->
        var ended = false
        var left = pace.collector.size
        val collector = FlowCollector<GenerationEvent> { if (--left == 0) throw IllegalStateException("enough") }
        val failure = runCatching {
            BackpressureStreamingManager(pace.policy) { currentTime * NANOS }.stream(collector, dispatcher()) { events ->
                try {
                    var index = 0
                    while (true) {
                        delay(pace.model[index % pace.model.size] + 1L)
                        events.send(token(index++))
                    }
                } finally {
                    ended = true
                }
            }
        }.exceptionOrNull()
        assertEquals("enough", failure?.message)
        assertTrue(ended)
    }

    private companion object {
        const val NANOS = 1_000_000L

        // By then even the slowest model has said something.
        const val LONG_MILLIS = 200L
    }
}
