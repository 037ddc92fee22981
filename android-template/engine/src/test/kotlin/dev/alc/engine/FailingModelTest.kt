package dev.alc.engine

import dev.alc.engine.GenerationEvent.Failed
import dev.alc.engine.GenerationEvent.Finished
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.last
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.TestScope
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withTimeout
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.concurrent.CountDownLatch

/** A model that throws or hangs, at every call that the engine makes of it. */
class FailingModelTest {
    /** A use of everything the engine does with a model; each step's failure, or null. */
    private suspend fun useAll(engine: ALCEngine): List<Throwable?> {
        suspend fun step(call: suspend () -> Any?): Throwable? = runCatching {
            (call() as? Failed)?.let { throw it.error }
        }.exceptionOrNull()
        return listOf(
            step { engine.generate(turn("1", "c")).last() },
            step { engine.generate(turn("2", "c")).last() },
            step { engine.fork("c", "d") },
            step { engine.generate(turn("3", "d")).last() },
            step { engine.trimTurns("c", 1) },
            step { engine.generate(turn("4")).last() },
            step { engine.score(intArrayOf(1, 2, 3)) { _, _ -> } },
            step { engine.dropIdleCaches() },
            step { engine.generate(turn("5", "c")).last() },
            step { engine.forget("c") },
            step { engine.forget("d") },
        )
    }

    private suspend fun TestScope.failingAt(number: Int, failure: () -> Throwable): Boolean {
        val model = ScriptedModel("abc")
        var calls = 0
        model.before = { if (calls++ == number) throw failure() }
        val engine = loaded(model)
        val failures = useAll(engine)
        val failed = failures.filterNotNull()
        assertTrue("call $number: $failed", failed.all { it is EngineException })
        // Whatever failed, nothing is held for it, and everything works again.
        model.before = {}
        engine.forget("c")
        engine.forget("d")
        assertEquals("call $number", 0, model.openSessions)
        assertEquals("call $number", 0L, engine.cacheCounters().usedBytes)
        assertEquals(List(failures.size) { null }, useAll(engine))
        engine.close()
        assertTrue(model.closed)
        return calls > number
    }

    @Test
    fun `an exception at any call is a typed failure, and the engine goes on`() = runTest {
        var number = 0
        while (failingAt(number) { BackendException("broke") }) number++
        assertTrue("only $number calls were made", number > 25)
        while (--number >= 0) failingAt(number) { IllegalStateException("a surprise") }
    }

    @Test
    fun `a model that cannot be closed is told, and the engine is closed all the same`() = runTest {
        val model = ScriptedModel("abc")
        val engine = loaded(model)
        engine.generate(turn("1", "c")).toList()
        model.before = { throw IllegalStateException("$it broke") }
        assertTrue(runCatching { engine.close() }.exceptionOrNull() is BackendException)
        assertEquals(EngineState.Closed, engine.state.value)
        assertTrue(model.closed)
        assertEquals(0, model.openSessions)
    }

    /** On a real thread, since a call that hangs would stop virtual time. */
    @Test
    fun `a call that hangs fails its request and every later one, and does not keep anyone waiting`() = runBlocking {
        for (hanging in listOf("open", "prefill", "decode")) {
            val model = ScriptedModel("abc")
            val engine = ALCEngine(ScriptedStrategy(model), EngineConfig(callTimeoutMillis = 100))
            engine.load("model")
            val comesBack = CountDownLatch(1)
            model.before = { if (it == hanging) comesBack.await() }
            withTimeout(20_000) {
                val waiting = launch {
                    assertTrue(engine.generate(turn("2")).failure() is BackendTimeoutException)
                }
                assertTrue(engine.generate(turn("1")).failure() is BackendTimeoutException)
                waiting.join()
                assertEquals(EngineState.Hung, engine.state.value)
                assertTrue(engine.generate(turn("3")).failure() is BackendTimeoutException)
                assertTrue(runCatching { engine.forget("c") }.exceptionOrNull() is BackendTimeoutException)
                engine.close()
                assertEquals(EngineState.Closed, engine.state.value)
            }
            // What the call holds is given back once it returns.
            model.before = {}
            comesBack.countDown()
            withTimeout(20_000) { while (!model.closed) delay(5) }
            assertEquals(0, model.openSessions)
        }
    }

    @Test
    fun `a slow call that comes back in time is no hang`() = runBlocking {
        val model = ScriptedModel("abc")
        val engine = ALCEngine(ScriptedStrategy(model), EngineConfig(callTimeoutMillis = 20_000))
        engine.load("model")
        model.before = { Thread.sleep(60) }
        assertTrue(engine.generate(turn("1")).toList().last() is Finished)
        engine.close()
    }
}
