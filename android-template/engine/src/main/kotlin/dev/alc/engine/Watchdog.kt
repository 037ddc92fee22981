package dev.alc.engine

import kotlinx.coroutines.Job
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.selects.select
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeoutOrNull
import java.util.concurrent.TimeUnit

/**
 * Notices when a call of the model does not return. Such a call cannot be interrupted, so it only
 * lets those who wait for the decode thread go.
 *
 * @param nanoTime the clock that says how long a call takes.
 */
internal class Watchdog(private val timeoutMillis: Long, private val nanoTime: () -> Long) {
    private val timeoutNanos = TimeUnit.MILLISECONDS.toNanos(timeoutMillis)
    private val expired = Job()

    @Volatile
    private var callSince = IDLE

    /** Whether a call has taken too long. It may return later; the verdict stays. */
    val hung: Boolean
        get() = expired.isCompleted

    /** Runs [call] of the model under watch. Calls on one thread only, not inside each other. */
    inline fun <T> watch(call: () -> T): T {
        callSince = nanoTime()
        try {
            return call()
        } finally {
            callSince = IDLE
        }
    }

    /**
     * Returns when [work] on the decode thread is over; if the caller is cancelled, cancels it and
     * still waits.
     *
     * @throws BackendTimeoutException if the thread hangs; [work] is cancelled then.
     */
    suspend fun await(work: Job) {
        try {
            join(work)
        } finally {
            work.cancel()
            if (!hung) withContext(NonCancellable) { join(work) }
        }
    }

    /** As [await], but leaves [work] alone whatever happens. */
    suspend fun join(work: Job) {
        while (!work.isCompleted) {
            if (hung) throw failure()
            val since = callSince
            val leftNanos = if (since == IDLE) timeoutNanos else timeoutNanos - (nanoTime() - since)
            if (leftNanos <= 0) {
                expired.complete()
            } else {
                withTimeoutOrNull(TimeUnit.NANOSECONDS.toMillis(leftNanos) + 1) {
                    select<Unit> {
                        work.onJoin {}
                        expired.onJoin {}
                    }
                }
            }
        }
    }

    /** What everybody is told once a call has [hung]. */
    fun failure(): BackendTimeoutException = BackendTimeoutException(
        "a call of the model has not returned for $timeoutMillis ms; close the engine and load the model again",
    )
}

/** What a clock never says. */
private const val IDLE = Long.MIN_VALUE
