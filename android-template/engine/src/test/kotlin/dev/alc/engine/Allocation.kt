package dev.alc.engine

import org.junit.Assume.assumeTrue
import java.lang.management.ManagementFactory

/** Skips a test where nothing counts what a thread allocates: only a JVM does. */
fun assumeAllocationIsCounted() {
    val counted = try {
        Class.forName("com.sun.management.ThreadMXBean") != null
    } catch (_: ClassNotFoundException) {
        false
    }
    assumeTrue("nothing counts here what a thread allocates", counted)
}

/** Apart, so that a machine without these classes need not load them. */
object Allocation {
    private val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean

    /** Bytes that the calling thread has allocated so far. */
    fun bytes(): Long = threads.getThreadAllocatedBytes(Thread.currentThread().id)
}
