package dev.alc.engine

/**
 * The conversations of one model, and which of them have a cache. Confined to the decode thread.
 *
 * @param budgetBytes the most bytes of cache to use.
 */
internal class Conversations(
    private val model: LoadedModel,
    private val watchdog: Watchdog,
    budgetBytes: Long,
) {
    private val memory = KVCacheMemoryManager(model.info.kv, model.cache, budgetBytes)
    private val byName = HashMap<String, Conversation>()

    /** The most tokens of one conversation. */
    val limit: Int = minOf(model.info.contextWindow, memory.capacityTokens)

    /** The conversation of this [name], or a new one, which is not kept before [add]. */
    fun getOrNew(name: String?): Conversation = name?.let(byName::get) ?: Conversation(name)

    /** Keeps [conversation], if it has a name. */
    fun add(conversation: Conversation) {
        if (conversation.name != null) byName[conversation.name] = conversation
    }

    /**
     * Runs [use] with the cache of [conversation], which has room for [tokens] in all. Caches of
     * idle conversations go where there is none. Afterwards the cache holds what is also in the
     * conversation; that of a conversation that is not kept, and a broken one, are given back.
     */
    inline fun <T> withCache(conversation: Conversation, tokens: Int, use: (Cache) -> T): T =
        AutoCloseable { settle(conversation) }.use {
            closeAll(memory.reserve(conversation, tokens))
            use(conversation.cache ?: Cache.open(model, watchdog).also { conversation.cache = it })
        }

    private fun settle(conversation: Conversation) {
        val cache = conversation.cache
        if (cache == null || cache.broken || byName[conversation.name] !== conversation) {
            memory.release(conversation)
            closeAll(listOf(conversation))
        } else {
            memory.idle(conversation, cache.size)
            shorten(conversation)
        }
    }

    /** Drops from the cache what is not in the conversation any more. */
    private fun shorten(conversation: Conversation) {
        val cache = conversation.cache ?: return
        try {
            cache.rewind(conversation.tokens)
            memory.idle(conversation, cache.size)
        } catch (failure: Throwable) {
            memory.release(conversation)
            conversation.cache = null
            AutoCloseable(cache::close).use { throw failure }
        }
    }

    /**
     * Starts [to] as a copy of [from]. Its cache shares the other's memory where the backend can,
     * but is counted in full, since each may come to need it. Where there is no room for that, the
     * copy has none and computes its tokens when it needs them.
     */
    fun fork(from: String, to: String) {
        val original = existing(from)
        if (to.isEmpty()) throw InvalidRequestException("a conversation's name must not be empty")
        if (to in byName) throw InvalidRequestException("there is a conversation named $to already")
        val copy = original.copy(to)
        val cache = original.cache
        if (cache != null) {
            // Marks it busy, so that it does not make room for its own copy.
            memory.reserve(original, cache.size)
            try {
                closeAll(memory.reserve(copy, cache.size))
                copy.cache = cache.fork()
                memory.idle(copy, cache.size)
            } catch (_: CacheBudgetException) {
                memory.release(copy)
            } catch (failure: Throwable) {
                memory.release(copy)
                throw failure
            } finally {
                memory.idle(original, cache.size)
            }
        }
        byName[to] = copy
    }

    /** Keeps the first [tokens] of the conversation of this [name]. */
    fun trim(name: String, tokens: Int) {
        val conversation = existing(name)
        conversation.trim(tokens)
        shorten(conversation)
    }

    /** Keeps the first [turns] of the conversation of this [name]. */
    fun trimTurns(name: String, turns: Int) {
        val conversation = existing(name)
        conversation.trimTurns(turns)
        shorten(conversation)
    }

    /** Drops the conversation of this [name], if there is one. */
    fun forget(name: String) {
        val gone = byName.remove(name) ?: return
        memory.release(gone)
        closeAll(listOf(gone))
    }

    /** Gives back the caches of all conversations that are not in use. */
    fun dropIdleCaches(): Unit = closeAll(memory.releaseIdle())

    /** Gives back everything. */
    fun close() {
        val all = byName.values.toList()
        byName.clear()
        all.forEach(memory::release)
        closeAll(all)
    }

    /** What the cache holds. */
    fun counters(): KvCounters = memory.counters()

    private fun existing(name: String): Conversation =
        byName[name] ?: throw InvalidRequestException("there is no conversation named $name")

    /** Closes the caches of all [owners], and only then throws what one of them threw. */
    private fun closeAll(owners: List<Any>) {
        var failure: Throwable? = null
        for (owner in owners) {
            val conversation = owner as Conversation
            val cache = conversation.cache ?: continue
            conversation.cache = null
            try {
                cache.close()
            } catch (problem: Throwable) {
                failure = failure ?: problem
            }
        }
        failure?.let { throw it }
    }
}
