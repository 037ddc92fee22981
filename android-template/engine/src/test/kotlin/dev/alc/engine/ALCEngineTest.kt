package dev.alc.engine

import app.cash.turbine.test
import dev.alc.engine.GenerationEvent.Failed
import dev.alc.engine.GenerationEvent.Finished
import dev.alc.engine.GenerationEvent.Prefilled
import dev.alc.engine.GenerationEvent.Started
import dev.alc.engine.GenerationEvent.Tokens
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.flow.transformWhile
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.runCurrent
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.yield
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Assert.fail
import org.junit.Test

@OptIn(ExperimentalCoroutinesApi::class)
class ALCEngineTest {
    @Test
    fun `an answer streams token by token and ends with its usage`() = runTest {
        val model = ScriptedModel("Hi!")
        loaded(model).generate(turn("yo")).test {
            val started = awaitItem() as Started
            assertArrayEquals(intArrayOf(ScriptedModel.USER, 'y'.code, 'o'.code, ScriptedModel.USER_END), started.promptTokenIds)
            assertEquals(4, (awaitItem() as Prefilled).tokens)
            "Hi!".forEachIndexed { index, letter ->
                val tokens = awaitItem() as Tokens
                assertEquals(index, tokens.first)
                assertArrayEquals(intArrayOf(letter.code), tokens.ids)
                assertEquals(letter.toString(), tokens.text)
            }
            val finished = awaitItem() as Finished
            assertEquals(FinishReason.STOP, finished.reason)
            assertEquals(Usage(promptTokens = 4, cachedTokens = 0, completionTokens = 3), finished.usage)
            awaitComplete()
        }
        assertEquals(0, model.openSessions)
    }

    @Test
    fun `a long prompt is computed in chunks`() = runTest {
        val model = ScriptedModel("", chunk = 8)
        loaded(model).generate(turn("0123456789ABCDEF!")).toList()
        assertEquals(listOf(8, 8, 3), model.computed.map { it.size })
    }

    @Test
    fun `a character that spans tokens is never cut`() = runTest {
        val model = ScriptedModel("aé😀b")
        val pieces = loaded(model).generate(turn("x")).toList().filterIsInstance<Tokens>().map { it.text }
        assertEquals(listOf("a", "", "é", "", "", "", "😀", "b"), pieces)
    }

    @Test
    fun `half a character at the end is shown as what it is`() = runTest {
        val events = loaded(ScriptedModel("é")).generate(turn("x", maxTokens = 1)).toList()
        assertEquals("\uFFFD", events.text())
        assertEquals(1, events.filterIsInstance<Tokens>().sumOf { it.ids.size })
    }

    @Test
    fun `a second turn computes only its new tokens`() = runTest {
        val model = ScriptedModel("one", "two")
        val engine = loaded(model)
        engine.generate(turn("a", "c")).toList()
        model.computed.clear()
        model.next = 1
        val events = engine.generate(turn("b", "c")).toList()
        assertEquals("two", events.text())
        val started = events.first() as Started
        // <user>a</user>one was there but for the last answer token, which nothing followed.
        assertEquals(6, started.cachedTokens)
        assertEquals("<end><user>b</user>".let { listOf(256, 257, 'b'.code, 258) }, model.computed.first())
        assertEquals(
            listOf(257, 'a'.code, 258) + "one".map { it.code } + listOf(256, 257, 'b'.code, 258),
            started.promptTokenIds.toList(),
        )
    }

    @Test
    fun `an answer that was cut off loses no token in the next turn`() = runTest {
        val model = ScriptedModel("abcdef", "x")
        val engine = loaded(model)
        engine.generate(turn("q", "c", maxTokens = 3)).toList()
        model.next = 1
        val started = engine.generate(turn("r", "c")).first() as Started
        assertEquals(
            listOf(257, 'q'.code, 258, 'a'.code, 'b'.code, 'c'.code, 256, 257, 'r'.code, 258),
            started.promptTokenIds.toList(),
        )
        assertEquals(5, started.cachedTokens)
    }

    @Test
    fun `a whole conversation that goes on is recognized and one that differs is computed anew`() = runTest {
        val model = ScriptedModel("one")
        val engine = loaded(model)
        fun chat(vararg messages: ChatMessage) = GenerationRequest(Prompt.Chat(messages.toList()), "c")
        val first = ChatMessage("user", "a")
        engine.generate(chat(first)).toList()
        val same = engine.generate(chat(first, ChatMessage("assistant", "one"), ChatMessage("user", "b"))).toList()
        assertEquals(6, (same.first() as Started).cachedTokens)
        val other = engine.generate(chat(ChatMessage("user", "zz"))).toList()
        assertEquals(1, (other.first() as Started).cachedTokens)
        assertEquals("one", other.text())
    }

    @Test
    fun `what a user writes never becomes a control token`() = runTest {
        val started = loaded(ScriptedModel("")).generate(turn("</user>")).first() as Started
        assertEquals(2, started.promptTokenIds.count { it >= 256 })
    }

    @Test
    fun `text without a template continues as text but not as a chat`() = runTest {
        val engine = loaded(ScriptedModel("b"))
        fun text(text: String) = GenerationRequest(Prompt.Text(text), "c")
        engine.generate(text("a")).toList()
        val started = engine.generate(text("c")).first() as Started
        assertEquals("abc".map { it.code }, started.promptTokenIds.toList())
        assertTrue(engine.generate(turn("x", "c")).failure() is InvalidRequestException)
    }

    @Test
    fun `requests are served in the order in which they came`() = runTest {
        val model = ScriptedModel("abc")
        val engine = loaded(model)
        val order = mutableListOf<Int>()
        List(4) { index ->
            async { engine.generate(turn("$index")).collect { if (it is Started) order += index } }
        }.awaitAll()
        assertEquals(listOf(0, 1, 2, 3), order)
    }

    @Test
    fun `more requests than the queue holds fail at once`() = runTest {
        val engine = loaded(ScriptedModel("abc"), EngineConfig(maxQueued = 1))
        val results = List(4) { async { engine.generate(turn("$it")).toList().last() } }.awaitAll()
        assertEquals(2, results.count { it is Finished })
        assertEquals(2, results.count { it is Failed && it.error is QueueFullException })
    }

    @Test
    fun `cancelling stops within one token and leaves the conversation as it was`() = runTest {
        val model = ScriptedModel("x".repeat(100), "ok")
        val engine = loaded(model)
        engine.generate(turn("a", "c", maxTokens = 2)).toList()
        model.computed.clear()
        var seen = 0
        engine.generate(turn("b", "c", streaming = StreamingPolicy.Slow(1)))
            .transformWhile { emit(it); it !is Tokens || ++seen < 3 }
            .toList()
        assertTrue("went on for ${model.computed.size}", model.computed.size <= 7)
        model.next = 1
        val events = engine.generate(turn("c", "c")).toList()
        val started = events.first() as Started
        assertEquals(
            listOf(257, 'a'.code, 258, 'x'.code, 'x'.code, 256, 257, 'c'.code, 258),
            started.promptTokenIds.toList(),
        )
        assertEquals(5, started.cachedTokens)
        assertEquals("ok", events.text())
    }

    @Test
    fun `a collector that throws gets its own exception and the engine stays usable`() = runTest {
        val model = ScriptedModel("abc")
        val engine = loaded(model)
        try {
            engine.generate(turn("a")).collect { if (it is Tokens) throw IllegalStateException("mine") }
            fail()
        } catch (expected: IllegalStateException) {
            assertEquals("mine", expected.message)
        }
        assertEquals(0, model.openSessions)
        assertEquals("abc", engine.generate(turn("b")).toList().text())
    }

    @Test
    fun `stop keeps what came so far`() = runTest {
        val model = ScriptedModel("abcdefghij", "ok")
        val engine = loaded(model)
        val events = mutableListOf<GenerationEvent>()
        engine.generate(turn("q", "c", streaming = StreamingPolicy.Slow(1))).collect {
            events += it
            if (events.text() == "abc") engine.stop("c")
        }
        assertEquals(FinishReason.CANCELLED, (events.last() as Finished).reason)
        val answer = events.text()
        assertTrue(answer, "abcdefghij".startsWith(answer) && answer.length in 3..5)
        model.next = 1
        val next = engine.generate(turn("r", "c")).first() as Started
        assertEquals(4 + answer.length + 3, next.promptTokenIds.size - 0)
    }

    @Test
    fun `stop reaches a request that still waits`() = runTest {
        val model = ScriptedModel("abc")
        val engine = loaded(model)
        val gate = CompletableDeferred<Unit>()
        val busy = launch { engine.generate(turn("a", streaming = StreamingPolicy.Slow(1))).collect { gate.await() } }
        val waiting = async { engine.generate(turn("b", "second")).toList() }
        runCurrent()
        engine.stop("second")
        val events = waiting.await()
        assertEquals(FinishReason.CANCELLED, (events.single() as Finished).reason)
        gate.complete(Unit)
        busy.join()
    }

    @Test
    fun `a prompt that leaves no room is refused before anything is computed`() = runTest {
        val model = ScriptedModel("abc", window = 16)
        val engine = loaded(model)
        assertTrue(engine.generate(turn("x".repeat(14))).failure() is ContextFullException)
        assertEquals(0, model.computed.size)
        val events = engine.generate(turn("x".repeat(12))).toList()
        assertEquals(FinishReason.LENGTH, (events.last() as Finished).reason)
        assertEquals("ab", events.text())
    }

    @Test
    fun `idle conversations make room and are computed again when they return`() = runTest {
        val model = ScriptedModel("ok", window = 64, poolTokens = 64)
        val engine = loaded(model)
        engine.generate(turn("x".repeat(20), "a", maxTokens = 8)).toList()
        engine.generate(turn("y".repeat(40), "b", maxTokens = 8)).toList()
        assertEquals(1, engine.cacheCounters().evictions)
        assertEquals(1, model.openSessions)
        val back = engine.generate(turn("z", "a", maxTokens = 8)).first() as Started
        assertEquals(0, back.cachedTokens)
        assertEquals(22 + 2 + 4, back.promptTokenIds.size)
    }

    @Test
    fun `a failure of the backend is an event and the engine stays usable`() = runTest {
        for (call in listOf("prefill", "decode")) {
            val model = ScriptedModel("abc")
            val engine = loaded(model)
            model.before = { if (it == call) throw BackendException("$call broke") }
            val error = engine.generate(turn("a", "c")).failure()
            assertEquals("$call broke", error.message)
            assertEquals(0, model.openSessions)
            assertEquals(0, engine.cacheCounters().usedBytes)
            model.before = { if (it == call) error("surprise") }
            assertTrue(engine.generate(turn("a", "c")).failure() is BackendException)
            model.before = {}
            assertEquals("abc", engine.generate(turn("a", "c")).toList().text())
        }
    }

    @Test
    fun `forgetting a conversation frees its cache and its tokens`() = runTest {
        val model = ScriptedModel("ok")
        val engine = loaded(model)
        engine.generate(turn("a", "c")).toList()
        assertTrue(engine.cacheCounters().usedBytes > 0)
        engine.forget("c")
        engine.forget("unknown")
        assertEquals(0, engine.cacheCounters().usedBytes)
        assertEquals(0, model.openSessions)
        assertEquals(3, (engine.generate(turn("b", "c")).first() as Started).promptTokenIds.size)
    }

    @Test
    fun `idle caches can be dropped without losing conversations`() = runTest {
        val model = ScriptedModel("ok")
        val engine = loaded(model)
        engine.generate(turn("a", "c")).toList()
        engine.dropIdleCaches()
        assertEquals(0, model.openSessions)
        val started = engine.generate(turn("b", "c")).first() as Started
        assertEquals(0, started.cachedTokens)
        assertEquals(9, started.promptTokenIds.size)
    }

    @Test
    fun `scoring gives every position in order and keeps nothing`() = runTest {
        val model = ScriptedModel("", chunk = 4)
        val engine = loaded(model)
        val tokens = IntArray(10) { it + 40 }
        val firsts = mutableListOf<Int>()
        val best = mutableListOf<Int>()
        engine.score(tokens) { first, rows ->
            firsts += first
            for (row in 0 until rows.remaining() / ScriptedModel.VOCABULARY) {
                best += (0 until ScriptedModel.VOCABULARY).maxBy { rows.get(row * ScriptedModel.VOCABULARY + it) }
            }
        }
        assertEquals(listOf(0, 4, 8), firsts)
        assertEquals(tokens.toList(), best)
        assertEquals(0, model.openSessions)
        assertEquals(0, engine.cacheCounters().usedBytes)
    }

    @Test
    fun `bad requests are typed errors`() = runTest {
        val engine = loaded(ScriptedModel("a"))
        val empty = listOf(
            Prompt.Text(""),
            Prompt.Turn(emptyList()),
            Prompt.Tokens(IntArray(0)),
            Prompt.Tokens(intArrayOf(1, 999)),
            Prompt.Tokens(intArrayOf(-1)),
        )
        for (prompt in empty) {
            assertTrue(engine.generate(GenerationRequest(prompt)).failure() is InvalidRequestException)
        }
        assertThrows(InvalidRequestException::class.java) { GenerationRequest(Prompt.Text("a"), maxTokens = 0) }
        assertThrows(InvalidRequestException::class.java) { GenerationRequest(Prompt.Text("a"), conversation = "") }
    }

    @Test
    fun `outside its life the engine says where it is`() = runTest {
        val model = ScriptedModel("abc")
        val engine = engine(model, strategy = ScriptedStrategy(model, loadMillis = 100))
        assertEquals("no model is loaded; call load first", engine.generate(turn("a")).failure().message)
        val loading = launch { engine.load("model") }
        runCurrent()
        assertTrue(engine.state.value is EngineState.Loading)
        assertEquals("the model is still being loaded", engine.generate(turn("a")).failure().message)
        loading.join()
        assertTrue(engine.state.value is EngineState.Ready)
        assertTrue(runCatching { engine.load("again") }.exceptionOrNull() is LifecycleException)
        engine.close()
        engine.close()
        assertTrue(model.closed)
        assertEquals(EngineState.Closed, engine.state.value)
        assertEquals("the engine is closed", engine.generate(turn("a")).failure().message)
        assertTrue(runCatching { engine.load("again") }.exceptionOrNull() is LifecycleException)
        assertTrue(runCatching { engine.forget("c") }.exceptionOrNull() is LifecycleException)
    }

    @Test
    fun `closing ends requests that run or wait, even under a collector that stands still`() = runTest {
        val model = ScriptedModel("x".repeat(50))
        val engine = loaded(model)
        val gate = CompletableDeferred<Unit>()
        val events = List(2) { mutableListOf<GenerationEvent>() }
        val jobs = events.map { list ->
            launch {
                engine.generate(turn("a", streaming = StreamingPolicy.Slow(1))).collect {
                    list += it
                    gate.await()
                }
            }
        }
        runCurrent()
        engine.close()
        assertTrue(model.closed)
        assertEquals(0, model.openSessions)
        gate.complete(Unit)
        jobs.forEach { it.join() }
        for (list in events) assertTrue((list.last() as Failed).error is LifecycleException)
    }

    @Test
    fun `a load that fails or is cancelled can be tried again`() = runTest {
        val model = ScriptedModel("a")
        val failing = engine(model, strategy = ScriptedStrategy(model, failure = ModelDamagedException("bad")))
        assertTrue(runCatching { failing.load("m") }.exceptionOrNull() is ModelDamagedException)
        assertEquals(EngineState.New, failing.state.value)
        val missing = Availability.Unavailable(listOf("no library"))
        val nothing = engine(model, strategy = ScriptedStrategy(model, missing))
        assertTrue(runCatching { nothing.load("m") }.exceptionOrNull() is StrategyUnavailableException)

        val slow = engine(model, strategy = ScriptedStrategy(model, loadMillis = 100))
        val job = launch { slow.load("m") }
        delay(10)
        job.cancel()
        job.join()
        assertEquals(EngineState.New, slow.state.value)
        slow.load("m")
        assertEquals("a", slow.generate(turn("x")).toList().text())
    }

    @Test
    fun `a strategy that is cancelled inside is not mistaken for a cancelled collector`() = runTest {
        val model = ScriptedModel("abc")
        val engine = loaded(model)
        model.before = { throw CancellationException("from below") }
        assertTrue(engine.generate(turn("a")).failure() is BackendException)
        model.before = {}
        assertEquals("abc", engine.generate(turn("b")).toList().text())
    }

    @Test
    fun `closing while requests come in from everywhere leaves none without an end`() = runBlocking {
        repeat(30) { round ->
            val model = ScriptedModel("abcdef")
            val engine = ALCEngine(ScriptedStrategy(model), EngineConfig(maxQueued = 100))
            engine.load("model")
            val requests = List(16) { index ->
                async(Dispatchers.Default) {
                    if (index % 4 == 3) yield()
                    engine.generate(turn("$index", "c${index % 3}")).toList().last()
                }
            }
            val calls = List(4) {
                async(Dispatchers.Default) { runCatching { engine.cacheCounters() }.exceptionOrNull() }
            }
            if (round % 2 == 0) delay(1)
            engine.close()
            for (last in requests.awaitAll()) {
                assertTrue("$last", last is Finished || (last is Failed && last.error is LifecycleException))
            }
            for (failure in calls.awaitAll()) assertTrue("$failure", failure == null || failure is LifecycleException)
            assertTrue(model.closed)
            assertEquals(0, model.openSessions)
        }
    }
}
