package dev.alc.engine

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.runCurrent
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

@OptIn(ExperimentalCoroutinesApi::class)
class ForkAndTrimTest {
    private suspend fun failure(call: suspend () -> Unit): Throwable? = runCatching { call() }.exceptionOrNull()

    @Test
    fun `a fork goes on from the same cache, and each goes its own way`() = runTest {
        val model = ScriptedModel("one")
        val engine = loaded(model)
        engine.generate(turn("a", "c")).toList()
        engine.fork("c", "d")
        assertEquals(2, model.openSessions)
        for (name in listOf("d", "c")) {
            val started = engine.generate(turn(name, name)).toList().started()
            assertEquals("<user>a</user>one<end><user>$name</user>", written(started.promptTokenIds))
            assertEquals(6, started.cachedTokens)
        }
        engine.forget("c")
        assertEquals(1, model.openSessions)
        val started = engine.generate(turn("e", "d")).toList().started()
        assertEquals("<user>a</user>one<end><user>d</user>one<end><user>e</user>", written(started.promptTokenIds))
    }

    @Test
    fun `a fork for which there is no cache computes its tokens when it needs them`() = runTest {
        val model = ScriptedModel("one", maxSessions = 1)
        val engine = loaded(model)
        engine.generate(turn("a", "c")).toList()
        engine.fork("c", "d")
        assertEquals(1, model.openSessions)
        val started = engine.generate(turn("b", "d")).toList().started()
        assertEquals(0, started.cachedTokens)
        assertEquals("<user>a</user>one<end><user>b</user>", written(started.promptTokenIds))
        // It took the place of the first, which has its tokens still.
        assertEquals(10, engine.generate(turn("b", "c")).toList().started().promptTokenIds.size)
    }

    @Test
    fun `the first turns are kept, and the next goes on from them`() = runTest {
        val engine = loaded(ScriptedModel("one"))
        for (question in listOf("1", "2", "3")) engine.generate(turn(question, "c")).toList()
        engine.trimTurns("c", 1)
        val started = engine.generate(turn("4", "c")).toList().started()
        assertEquals("<user>1</user>one<end><user>4</user>", written(started.promptTokenIds))
        assertEquals(6, started.cachedTokens)
        engine.trimTurns("c", 0)
        assertEquals(0, engine.cacheCounters().usedBytes)
        val anew = engine.generate(turn("5", "c")).toList().started()
        assertEquals("<user>5</user>", written(anew.promptTokenIds))
    }

    @Test
    fun `what a cut leaves of a turn goes on as text and not as a chat`() = runTest {
        val engine = loaded(ScriptedModel("one"))
        engine.generate(turn("1", "c")).toList()
        engine.trim("c", 4)
        assertTrue(engine.generate(turn("2", "c")).failure() is InvalidRequestException)
        val text = GenerationRequest(Prompt.Text("xy"), "c")
        assertEquals("<user>1</user>oxy", written(engine.generate(text).toList().started().promptTokenIds))
        engine.trim("c", 0)
        assertEquals(3, engine.generate(turn("3", "c")).toList().started().promptTokenIds.size)
    }

    @Test
    fun `what is unknown, taken or too much is refused`() = runTest {
        val engine = loaded(ScriptedModel("one"))
        for (name in listOf("c", "d")) engine.generate(turn("1", name)).toList()
        val refused: List<suspend () -> Unit> = listOf(
            { engine.fork("x", "y") },
            { engine.fork("c", "d") },
            { engine.fork("c", "c") },
            { engine.fork("c", "") },
            { engine.trim("x", 0) },
            { engine.trim("c", 7) },
            { engine.trim("c", -1) },
            { engine.trimTurns("c", 2) },
            { engine.trimTurns("c", -1) },
        )
        for (call in refused) assertTrue(failure(call) is InvalidRequestException)
        assertEquals(6, engine.generate(turn("2", "c")).toList().started().cachedTokens)
    }

    @Test
    fun `a conversation that is being answered is left alone, others do not wait`() = runTest {
        val engine = loaded(ScriptedModel("a longer answer"))
        engine.generate(turn("1", "idle")).toList()
        val gate = CompletableDeferred<Unit>()
        val answer = launch {
            engine.generate(turn("2", "busy", streaming = StreamingPolicy.Slow(1))).collect { gate.await() }
        }
        runCurrent()
        assertTrue(failure { engine.fork("busy", "copy") } is LifecycleException)
        assertTrue(failure { engine.fork("idle", "busy") } is LifecycleException)
        assertTrue(failure { engine.trim("busy", 0) } is LifecycleException)
        assertTrue(failure { engine.trimTurns("busy", 0) } is LifecycleException)
        // The model stands still under its collector, and this is done all the same.
        val copied = async { engine.fork("idle", "copy") }
        runCurrent()
        assertTrue(copied.isCompleted)
        gate.complete(Unit)
        answer.join()
        engine.fork("busy", "later")
    }
}
