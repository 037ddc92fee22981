package dev.alc.runtime

import dev.alc.engine.BackendException
import dev.alc.engine.CacheBudgetException
import dev.alc.engine.ContextFullException
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadedModel
import dev.alc.engine.ModelSession
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import java.nio.FloatBuffer
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.atomic.AtomicBoolean
import java.util.concurrent.atomic.LongAdder
import kotlin.concurrent.thread

/** Sequences of tokens in a loaded model: the same tokens give the same logits on every way. */
class TVMModuleTest {
    private lateinit var model: LoadedModel
    private val tokens =
        intArrayOf(5, 9, 42, 7, 200, 11, 250, 3, 17, 80, 5, 9, 2, 1, 44, 45, 46, 47)

    @Before
    fun open() {
        model = TestFiles.open(options = LoadOptions(contextTokens = CAPACITY, maxSessions = 3))
    }

    @After
    fun close() {
        if (::model.isInitialized) model.close()
    }

    @Test
    fun `decoding token by token gives the logits of a whole pass`() {
        val whole = model.openSession().use { rows(it.verify(tokens)) }
        assertEquals(tokens.size, whole.size)
        model.openSession().use { session ->
            assertClose(whole[3], session.prefill(tokens.copyOf(4)).copy())
            for (index in 4 until tokens.size) {
                assertClose(whole[index], session.decode(tokens[index]).copy())
                assertEquals(index + 1, session.length)
            }
        }
    }

    @Test
    fun `logits are direct views of the vocabulary's size`() {
        model.openSession().use { session ->
            val view = session.prefill(tokens)
            assertTrue(view.isDirect)
            assertEquals(0, view.position())
            assertEquals(model.info.vocabSize, view.limit())
            assertTrue(view.copy().all { it.isFinite() })
        }
    }

    @Test
    fun `dropped tokens leave nothing behind`() {
        model.openSession().use { session ->
            session.prefill(tokens)
            val expected = session.decode(100).copy()
            session.trim(tokens.size)
            session.decode(200)
            session.decode(201)
            session.trim(tokens.size)
            assertClose(expected, session.decode(100).copy())
            session.trim(0)
            session.prefill(tokens)
            assertClose(expected, session.decode(100).copy())
        }
    }

    @Test
    fun `a fork goes its own way from where it began`() {
        model.openSession().use { first ->
            first.prefill(tokens)
            first.fork().use { second ->
                assertEquals(tokens.size, second.length)
                val expected = first.decode(100).copy()
                second.decode(200)
                second.trim(tokens.size)
                assertClose(expected, second.decode(100).copy())
                first.reset()
                second.decode(101)
            }
        }
        model.openSession().use { empty -> empty.fork().use { assertEquals(0, it.length) } }
    }

    @Test
    fun `forks agree wherever in a page they begin and however much is dropped`() {
        val text = IntArray(40) { (it * 31 + 7) % 256 }
        val expected = model.openSession().use { rows(it.verify(text)) }
        for (length in listOf(1, 15, 16, 17, 32, 33)) {
            model.openSession().use { first ->
                first.prefill(text.copyOf(length))
                first.fork().use { second ->
                    assertClose(expected[length], first.decode(text[length]).copy())
                    second.decode(100)
                    val kept = length / 2
                    second.trim(kept)
                    for (index in kept until length + 2) {
                        assertClose(expected[index], second.decode(text[index]).copy())
                    }
                    assertClose(expected[length + 1], first.decode(text[length + 1]).copy())
                }
                assertClose(expected[length + 2], first.decode(text[length + 2]).copy())
            }
        }
    }

    @Test
    fun `a reset session is as good as new`() {
        model.openSession().use { session ->
            val expected = session.prefill(tokens).copy()
            session.reset()
            assertEquals(0, session.length)
            assertClose(expected, session.prefill(tokens).copy())
        }
    }

    @Test
    fun `closed sessions give all of their cache back`() {
        repeat(20) {
            model.openSession().use { session ->
                var left = CAPACITY
                while (left > 0) {
                    val count = minOf(left, model.info.prefillChunk)
                    session.prefill(IntArray(count) { it % model.info.vocabSize })
                    left -= count
                }
                assertThrows(ContextFullException::class.java) { session.decode(1) }
            }
        }
    }

    @Test
    fun `sessions share the pool and a full pool changes nothing`() {
        val first = model.openSession()
        val second = model.openSession()
        first.prefill(IntArray(CHUNK) { it })
        second.prefill(IntArray(CHUNK) { it })
        assertThrows(CacheBudgetException::class.java) { first.prefill(IntArray(CHUNK) { it }) }
        assertEquals(CHUNK, first.length)
        second.close()
        first.prefill(IntArray(CHUNK) { it })
        assertEquals(2 * CHUNK, first.length)
    }

    @Test
    fun `more sessions than asked for are refused`() {
        repeat(3) { model.openSession() }
        assertThrows(BackendException::class.java) { model.openSession() }
    }

    @Test
    fun `what can never be computed is refused before native code sees it`() {
        model.openSession().use { session ->
            for (bad in listOf(-1, model.info.vocabSize, Int.MAX_VALUE)) {
                assertThrows(InvalidRequestException::class.java) { session.decode(bad) }
                assertThrows(InvalidRequestException::class.java) {
                    session.prefill(intArrayOf(1, bad))
                }
            }
            assertThrows(InvalidRequestException::class.java) { session.prefill(IntArray(0)) }
            assertThrows(InvalidRequestException::class.java) {
                session.verify(IntArray(model.info.prefillChunk + 1))
            }
            assertThrows(InvalidRequestException::class.java) { session.trim(1) }
            assertThrows(InvalidRequestException::class.java) { session.trim(-1) }
            assertEquals(0, session.length)
            session.prefill(tokens)
        }
    }

    @Test
    fun `use after close is an exception`() {
        val session = model.openSession()
        session.prefill(tokens)
        session.close()
        session.close()
        assertThrows(LifecycleException::class.java) { session.decode(1) }
        assertThrows(LifecycleException::class.java) { session.length }
        val other = model.openSession()
        model.close()
        model.close()
        assertThrows(LifecycleException::class.java) { other.decode(1) }
        assertThrows(LifecycleException::class.java) { model.openSession() }
    }

    @Test
    fun `use from a second thread is an exception`() {
        val session = model.openSession()
        session.prefill(tokens)
        val calls = listOf<() -> Unit>(
            { session.decode(1) },
            { session.prefill(tokens) },
            { session.reset() },
            { session.close() },
            { model.openSession() },
            { model.close() },
        )
        for (call in calls) {
            var problem: Throwable? = null
            thread { problem = runCatching(call).exceptionOrNull() }.join()
            assertTrue("$problem", problem is LifecycleException)
        }
        session.decode(1)
    }

    @Test
    fun `threads that meddle while the owner computes and closes get exceptions`() {
        val session = model.openSession()
        session.prefill(tokens)
        val running = AtomicBoolean(true)
        val refused = LongAdder()
        val unexpected = ConcurrentLinkedQueue<Throwable>()
        val calls = listOf<() -> Unit>(
            { session.decode(1) },
            { session.verify(tokens) },
            { session.trim(0) },
            { session.reset() },
            { session.fork() },
            { model.openSession() },
        )
        val meddlers = List(2) {
            thread {
                while (running.get()) {
                    for (call in calls) {
                        val problem = runCatching(call).exceptionOrNull()
                        if (problem is LifecycleException) refused.increment() else unexpected.add(problem)
                    }
                    // Refused while the model is open, and nothing to do after that.
                    runCatching { model.close() }
                }
            }
        }
        repeat(30) {
            session.decode(it)
            session.trim(tokens.size)
        }
        model.close()
        val atClose = refused.sum()
        while (refused.sum() < atClose + 100) Thread.yield()
        running.set(false)
        meddlers.forEach { it.join() }
        assertEquals(emptyList<Throwable>(), unexpected.toList())
    }

    @Test
    fun `a view outlives its model`() {
        val view = model.openSession().prefill(tokens)
        val expected = view.copy()
        model.close()
        assertArrayEquals(expected, view.copy(), 0f)
    }

    @Test
    fun `two models of one package do not disturb each other`() {
        val expected = model.openSession().use { it.prefill(tokens).copy() }
        TestFiles.open(options = LoadOptions(contextTokens = CAPACITY)).use { second ->
            second.openSession().use { assertClose(expected, it.prefill(tokens).copy()) }
        }
        model.openSession().use { assertClose(expected, it.prefill(tokens).copy()) }
    }

    @Test
    fun `models on two threads compute at the same time`() {
        val expected = model.openSession().use { it.prefill(tokens).copy() }
        val problems = List(2) { arrayOfNulls<Throwable>(1) }
        problems.map { problem ->
            thread {
                problem[0] = runCatching {
                    TestFiles.open().use { own ->
                        repeat(20) {
                            own.openSession().use { session ->
                                assertClose(expected, session.prefill(tokens).copy())
                            }
                        }
                    }
                }.exceptionOrNull()
            }
        }.forEach { it.join() }
        problems.forEach { problem -> problem[0]?.let { throw it } }
    }

    @Test
    fun `closed models leave neither memory nor files behind`() {
        fun cycle() = TestFiles.open(options = LoadOptions(contextTokens = CAPACITY)).use { other ->
            val session = other.openSession()
            session.prefill(tokens)
            session.fork().decode(1)
            assertThrows(InvalidRequestException::class.java) { session.decode(-1) }
        }
        model.close()
        cycle()
        val before = TestFiles.heldHandles()
        repeat(10) { cycle() }
        assertEquals(before, TestFiles.heldHandles())
        assertEquals(emptyList<String>(), TestFiles.mappedModelFiles())
    }

    @Test
    fun `the number of threads changes no logits`() {
        val expected = model.openSession().use { it.prefill(tokens).copy() }
        for (threads in listOf(1, 3)) {
            var problem: Throwable? = null
            // The size of TVM's pool is settled by its first use in a thread.
            thread {
                problem = runCatching {
                    TestFiles.open(options = LoadOptions(threads = threads)).use { other ->
                        assertEquals(threads, other.info.threads)
                        other.openSession().use { assertClose(expected, it.prefill(tokens).copy()) }
                    }
                }.exceptionOrNull()
            }.join()
            problem?.let { throw it }
        }
    }

    private fun rows(all: FloatBuffer): List<FloatArray> {
        val size = model.info.vocabSize
        return List(all.limit() / size) { row -> FloatArray(size).also { all.get(row * size, it) } }
    }

    private fun FloatBuffer.copy(): FloatArray = FloatArray(limit()).also { get(0, it) }

    private fun assertClose(expected: FloatArray, actual: FloatArray) {
        val largest = expected.indices.maxOf { kotlin.math.abs(expected[it] - actual[it]) }
        // The same numbers in another order of sums; quantized activations may also take the next
        // step.
        val tolerance = if (model.info.quantization == "q0f32") 1e-3f else 0.3f
        assertTrue("logits differ by $largest", largest < tolerance)
    }

    private fun <T> ModelSession.use(body: (ModelSession) -> T): T = try {
        body(this)
    } finally {
        close()
    }

    private companion object {
        const val CHUNK = 64
        const val CAPACITY = 2 * CHUNK
    }
}
