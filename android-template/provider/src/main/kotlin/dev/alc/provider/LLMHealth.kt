package dev.alc.provider

import dev.alc.engine.EngineException
import dev.alc.engine.LoadProgress

/** What [LocalLLMProvider.checkHealth] found. */
public sealed interface LLMHealth {
    /**
     * Requests are answered.
     *
     * @property busy whether an answer is being made; nothing was computed for the check then.
     */
    public data class Healthy(public val info: LLMInfo, public val busy: Boolean) : LLMHealth

    /** No model is loaded, and nothing is missing for that. */
    public data object NotLoaded : LLMHealth

    /** A model is being loaded; [progress] is null until the loader reports. */
    public data class Loading(public val progress: LoadProgress?) : LLMHealth

    /** No model can run here; each entry of [missing] names one thing that is lacking. */
    public data class Unavailable(public val missing: List<String>) : LLMHealth

    /** Requests fail, as with [error]; [LocalLLMProvider.cleanup] and loading again may help. */
    public data class Unusable(public val error: EngineException) : LLMHealth
}
