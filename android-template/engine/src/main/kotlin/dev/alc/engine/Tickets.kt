package dev.alc.engine

import kotlinx.coroutines.Job
import kotlin.coroutines.CoroutineContext

/** One request between the start of its collection and its end. */
internal class Ticket(val conversation: String?, val requestedNanos: Long) {
    enum class Ending { STOP, CLOSE }

    private var job: Job? = null
    private var begun = false

    /** Why the request is to end early, or null. */
    @Volatile
    var ending: Ending? = null
        private set

    /** Whether the collector was sent the last event. */
    @Volatile
    var answered: Boolean = false

    val stopped: Boolean
        get() = ending == Ending.STOP

    /** The coroutine that serves the request is the one of [context]. */
    @Synchronized
    fun attach(context: CoroutineContext) {
        job = context[Job]
        if (ending != null) job?.cancel()
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
