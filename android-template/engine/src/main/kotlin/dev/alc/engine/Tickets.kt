package dev.alc.engine

import kotlinx.coroutines.Job
import java.util.concurrent.atomic.AtomicBoolean

/** One request between the start of its collection and its end. */
internal class Ticket(val conversation: String?, val requestedNanos: Long) {
    enum class Ending { STOP, CLOSE }

    private val lastEvent = AtomicBoolean()
    private var job: Job? = null
    private var begun = false

    /** Why the request is to end early, or null. */
    @Volatile
    var ending: Ending? = null
        private set

    val stopped: Boolean
        get() = ending == Ending.STOP

    /** Whether the collector was, or is just being, sent the last event. */
    val answered: Boolean
        get() = lastEvent.get()

    /** True for the first who asks, and only that one may send the last event. */
    fun claimLastEvent(): Boolean = lastEvent.compareAndSet(false, true)

    /** The request is served by [job]. */
    @Synchronized
    fun attach(job: Job) {
        this.job = job
        if (ending != null) job.cancel()
    }

    /** The request's turn has come. */
    @Synchronized
    fun begin() {
        begun = true
    }

    /** A stop lets a request that has begun end by itself; everything else is cancelled. */
    @Synchronized
    fun end(why: Ending) {
        if (ending == Ending.CLOSE) return
        ending = why
        if (why == Ending.CLOSE || !begun) job?.cancel()
    }
}

/** The requests that are being served or wait, at most [maxQueued] of the latter. */
internal class Tickets(private val maxQueued: Int) {
    private val open = LinkedHashSet<Ticket>()
    private var closed = false

    /** Lets [ticket] in and returns null, or returns why not. */
    @Synchronized
    fun admit(ticket: Ticket): EngineException? = when {
        closed -> LifecycleException("the engine is closed")
        open.size > maxQueued -> QueueFullException("$maxQueued requests are waiting already")
        else -> {
            open += ticket
            null
        }
    }

    @Synchronized
    fun leave(ticket: Ticket) {
        open -= ticket
    }

    /** Whether a request of [conversation] is being answered or waits. */
    @Synchronized
    fun busy(conversation: String): Boolean = open.any { it.conversation == conversation && !it.answered }

    @Synchronized
    fun end(why: Ticket.Ending, conversation: String?) {
        for (ticket in open) {
            if (conversation == null || ticket.conversation == conversation) ticket.end(why)
        }
    }

    @Synchronized
    fun close() {
        closed = true
        end(Ticket.Ending.CLOSE, null)
    }
}
