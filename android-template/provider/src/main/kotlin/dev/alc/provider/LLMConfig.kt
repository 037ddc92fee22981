package dev.alc.provider

/**
 * Which model to run and what it may use. Nothing is checked here:
 * [LocalLLMProvider.initialize] refuses values that are out of range.
 *
 * @property modelPath the package's folder, or the stamp file that a deployment wrote.
 * @property maxMemoryMB the most MiB that the model may take: weights, key/value cache, and what
 *   the runtime works in. The app's own heap is not counted.
 * @property threads threads of one forward pass, 1 to 64; null takes as many as the processor has
 *   big cores, 4 at most.
 * @property contextTokens tokens that all conversations together may hold; null takes the
 *   model's context window.
 * @property cpuVariant the variant of the model's code that is to run, such as `armv8-a`; null
 *   takes the best one that the processor can run.
 * @property bigCoresOnly whether those threads stay on the processor's big cores; else the system
 *   moves them as load and heat ask for.
 */
public data class LLMConfig(
    public val modelPath: String,
    public val maxMemoryMB: Int = 2048,
    public val threads: Int? = null,
    public val contextTokens: Int? = null,
    public val cpuVariant: String? = null,
    public val bigCoresOnly: Boolean = false,
)
