package dev.alc.engine

import kotlinx.coroutines.yield
import java.util.concurrent.atomic.AtomicInteger

/** A loaded model with what the engine keeps for it. Confined to the decode thread, but for [tokenizer]. */
internal class Loaded(val model: LoadedModel, watchdog: Watchdog, cacheBudgetBytes: Long) {
    val info: ModelInfo = model.info
    val tokenizer: Tokenizer = model.tokenizer
    val eosTokens: IntArray = info.eosTokenIds.toIntArray()
    val conversations = Conversations(model, watchdog, cacheBudgetBytes)

    /** Made for the first answer that needs it: it reads the whole vocabulary. */
    val json: JsonGrammar by lazy(LazyThreadSafetyMode.NONE) { JsonGrammar(tokenizer, info.eosTokenIds) }

    /** Gives back the caches and the model. */
    fun close(): Unit = AutoCloseable(model::close).use { conversations.close() }
}

/** Counts who wants to do something on the decode thread that need not wait for the end of an answer. */
internal class Visitors {
    private val count = AtomicInteger()

    val waiting: Boolean
        get() = count.get() > 0

    /** Runs [visit], for which the request that has the decode thread makes way. */
    inline fun <T> announce(visit: () -> T): T {
        count.incrementAndGet()
        try {
            return visit()
        } finally {
            count.decrementAndGet()
        }
    }

    /** Called on the decode thread: lets those in who wait. */
    suspend fun letIn(): Unit = yield()
}
