package dev.alc.runtime

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File
import java.io.IOException
import kotlin.concurrent.thread

/** The pool of a thread that computes, as Linux sees its threads. */
class ThreadsTest {
    init {
        TestFiles.runtime()
    }

    @Test
    fun `a thread and its pool stay on the cores that they are told`() {
        val allowed = onItsOwnThread { allowed("/proc/thread-self/status") }
        val first = allowed.takeWhile(Char::isDigit)
        // Where there is one core only, all threads are on it already.
        val more = if (allowed == first) 0 else 2
        onItsOwnThread {
            assertEquals(2, NativeBindings.configureThreads(2))
            val before = boundTo(first)
            assertTrue(NativeBindings.keepOnCores(intArrayOf(first.toInt(), 100_000)))
            assertEquals(more, (boundTo(first) - before).size)
        }
    }

    @Test
    fun `cores that there are not change nothing`() = onItsOwnThread {
        val before = allowed("/proc/thread-self/status")
        for (cores in listOf(intArrayOf(), intArrayOf(-1), intArrayOf(1023, 100_000))) {
            assertFalse(NativeBindings.keepOnCores(cores))
        }
        assertEquals(before, allowed("/proc/thread-self/status"))
    }

    /** The threads of this process that may run on this core only. Threads of other tests may end meanwhile. */
    private fun boundTo(core: String): Set<String> = File("/proc/self/task").list().orEmpty()
        .filter { thread ->
            try {
                allowed("/proc/self/task/$thread/status") == core
            } catch (_: IOException) {
                false
            }
        }.toSet()

    private fun allowed(path: String): String = File(path).useLines { lines ->
        lines.first { it.startsWith("Cpus_allowed_list:") }.substringAfter(':').trim()
    }

    private fun <T> onItsOwnThread(block: () -> T): T {
        var result: Result<T>? = null
        thread { result = runCatching(block) }.join()
        return result!!.getOrThrow()
    }
}
