package dev.alc.engine

/** Where an [ALCEngine] is in its life: new, loading, ready, perhaps hung, and in the end closed. */
public sealed interface EngineState {
    /** No model is loaded; [ALCEngine.load] may be called. */
    public data object New : EngineState

    /** A model is being loaded; [progress] is null until the loader reports. */
    public data class Loading(public val progress: LoadProgress?) : EngineState

    /** Requests are served. */
    public data class Ready(public val info: ModelInfo) : EngineState

    /** A call of the model has not returned in time; only [ALCEngine.close] is of use. */
    public data object Hung : EngineState

    /** Everything has been given back, or will be when a call that hangs returns. */
    public data object Closed : EngineState
}

/**
 * How an engine runs.
 *
 * @property maxQueued requests that may wait while one is served; more fail at once.
 * @property cacheBudgetBytes the most bytes of key/value cache to use; the pool that was loaded
 *   is the limit in any case.
 * @property callTimeoutMillis the longest that one call of the model's sessions may take, such as
 *   one chunk of a prompt; after that the model counts as hung. Loading has no limit.
 */
public data class EngineConfig(
    public val maxQueued: Int = 8,
    public val cacheBudgetBytes: Long = Long.MAX_VALUE,
    public val callTimeoutMillis: Long = 120_000,
) {
    init {
        if (maxQueued < 0) throw InvalidRequestException("maxQueued is negative: $maxQueued")
        if (cacheBudgetBytes < 1) {
            throw InvalidRequestException("cacheBudgetBytes must be positive: $cacheBudgetBytes")
        }
        if (callTimeoutMillis < 1) {
            throw InvalidRequestException("callTimeoutMillis must be positive: $callTimeoutMillis")
        }
    }
}
