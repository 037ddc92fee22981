package dev.alc.engine

import dev.alc.engine.GenerationEvent.Tokens
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeoutOrNull
import kotlin.coroutines.CoroutineContext

/**
 * Carries the events of one request from the decode thread to its collector.
 *
 * A slow collector slows the model down or lets waiting tokens join, as the [policy] says. No
 * event is lost and none overtakes another. At most as many tokens wait as the policy allows,
 * so memory is bounded whatever the collector does. Serves one request.
 *
 * @param nanoTime the clock of [StreamingPolicy.Coalesce.intervalMillis].
 */
public class BackpressureStreamingManager(
    private val policy: StreamingPolicy,
    private val nanoTime: () -> Long = System::nanoTime,
) {
    private val lock = Any()
    private val queue = ArrayDeque<GenerationEvent>()
    private val joining = Joiner()
    private var closed = false
    private var dueNanos: Long? = null

    // Each holds at most one wake-up; whoever wakes looks at the queue again.
    private val arrivals = Channel<Unit>(Channel.CONFLATED)
    private val departures = Channel<Unit>(Channel.CONFLATED)

    /**
     * Runs [produce] in [context] and emits what it sends to [collector] until it returns.
     *
     * An exception of the collector cancels [produce]; one of [produce] reaches the collector.
     * Either way this returns only when [produce] has ended.
     */
    public suspend fun stream(
        collector: FlowCollector<GenerationEvent>,
        context: CoroutineContext,
        produce: suspend (BackpressureStreamingManager) -> Unit,
    ): Unit = coroutineScope {
        // Also when it is cancelled before it begins, as by a thread that has ended meanwhile.
        launch(context) { produce(this@BackpressureStreamingManager) }.invokeOnCompletion { close() }
        while (true) collector.emit(next() ?: break)
    }

    /** Queues [event]; waits while the queue is full. */
    public suspend fun send(event: GenerationEvent) {
        while (!offer(event)) departures.receive()
    }

    /** Queues the last event, for which there is always room. */
    public fun sendLast(event: GenerationEvent) {
        if (synchronized(lock) { append(event) }) arrivals.trySend(Unit)
    }

    private fun close() {
        synchronized(lock) { closed = true }
        arrivals.trySend(Unit)
    }

    private fun offer(event: GenerationEvent): Boolean {
        val wakes = synchronized(lock) {
            val full = when (policy) {
                is StreamingPolicy.Slow -> queue.size >= policy.capacity
                is StreamingPolicy.Coalesce -> full()
            }
            if (full) return false
            append(event)
        }
        if (wakes) arrivals.trySend(Unit)
        return true
    }

    /** Whether the collector has to know at once, which costs the decode thread more than all else. */
    private fun append(event: GenerationEvent): Boolean {
        if (policy is StreamingPolicy.Coalesce) {
            if (event is Tokens) {
                // Behind others it waits for the time that they are due, as the collector does.
                val first = !joining.ready
                joining.add(event)
                return first || full()
            }
            // What is not a token must not overtake the tokens before it.
            joining.take()?.let(queue::addLast)
        }
        queue.addLast(event)
        return true
    }

    /** The next event, or null after the last. */
    private suspend fun next(): GenerationEvent? {
        while (true) {
            val waitNanos = synchronized(lock) {
                val head = queue.removeFirstOrNull()
                if (head != null) {
                    departures.trySend(Unit)
                    return head
                }
                val left = if (joining.ready) (dueNanos ?: nanoTime()) - nanoTime() else Long.MAX_VALUE
                if (joining.ready && (left <= 0 || closed || full())) {
                    dueNanos = nanoTime() + intervalNanos()
                    departures.trySend(Unit)
                    return joining.take()
                }
                if (closed && !joining.ready) return null
                left
            }
            if (waitNanos == Long.MAX_VALUE) {
                arrivals.receive()
            } else {
                withTimeoutOrNull(waitNanos / NANOS_PER_MILLI + 1) { arrivals.receive() }
            }
        }
    }

    private fun full(): Boolean =
        policy is StreamingPolicy.Coalesce && joining.count >= policy.maxTokens

    private fun intervalNanos(): Long =
        if (policy is StreamingPolicy.Coalesce) policy.intervalMillis * NANOS_PER_MILLI else 0

    /** Tokens that wait to become one event. */
    private class Joiner {
        private val waiting = mutableListOf<Tokens>()
        var count = 0
            private set

        val ready: Boolean
            get() = waiting.isNotEmpty()

        fun add(event: Tokens) {
            waiting += event
            count += maxOf(event.ids.size, 1)
        }

        fun take(): Tokens? {
            val first = waiting.firstOrNull() ?: return null
            val joined = if (waiting.size == 1) first else join(first)
            waiting.clear()
            count = 0
            return joined
        }

        private fun join(first: Tokens): Tokens {
            val size = waiting.sumOf { it.ids.size }
            val ids = IntArray(size)
            val nanos = LongArray(size)
            var at = 0
            for (event in waiting) {
                event.ids.copyInto(ids, at)
                event.nanos.copyInto(nanos, at)
                at += event.ids.size
            }
            return Tokens(first.first, ids, nanos, waiting.joinToString("") { it.text })
        }
    }

    private companion object {
        const val NANOS_PER_MILLI = 1_000_000L
    }
}
