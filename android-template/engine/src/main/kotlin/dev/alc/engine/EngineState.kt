package dev.alc.engine

/** Where an [ALCEngine] is in its life: new, loading, ready, and in the end closed. */
public sealed interface EngineState {
    /** No model is loaded; [ALCEngine.load] may be called. */
    public data object New : EngineState

    /** A model is being loaded; [progress] is null until the loader reports. */
    public data class Loading(public val progress: LoadProgress?) : EngineState

    /** Requests are served. */
    public data class Ready(public val info: ModelInfo) : EngineState

    /** Everything has been given back. */
    public data object Closed : EngineState
}

/**
 * How an engine runs.
 *
 * @property maxQueued requests that may wait while one is served; more fail at once.
 * @property cacheBudgetBytes the most bytes of key/value cache to use; the pool that was loaded
 *   is the limit in any case.
 */
public data class EngineConfig(
    public val maxQueued: Int = 8,
    public val cacheBudgetBytes: Long = Long.MAX_VALUE,
) {
    init {
        if (maxQueued < 0) throw InvalidRequestException("maxQueued is negative: $maxQueued")
        if (cacheBudgetBytes < 1) {
            throw InvalidRequestException("cacheBudgetBytes must be positive: $cacheBudgetBytes")
        }
    }
}
