package dev.alc.runtime

import kotlin.concurrent.thread

/** Runs [body] once, on a thread of its own that is called [name]. */
internal class Background<T>(name: String, body: () -> T) {
    private var result: Result<T>? = null
    private val worker = thread(isDaemon = true, name = name) { result = runCatching(body) }

    /** Returns when the thread has ended. */
    fun join(): Unit = worker.join()

    /** Waits for the end of [body], and returns or throws as it did. */
    fun await(): T {
        join()
        return checkNotNull(result).getOrThrow()
    }
}
