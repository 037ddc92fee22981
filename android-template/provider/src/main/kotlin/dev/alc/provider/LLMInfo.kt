package dev.alc.provider

/**
 * What answers requests.
 *
 * @property engine the strategy that runs the model, such as `alc`.
 * @property runtime the native runtime and its version, such as `tvm 0.27.0.post1`.
 * @property model the package's name, such as `smollm2-135m-instruct`.
 * @property quantization the name of the weights' form, such as `q4f16_1`.
 * @property backend what really computes here, such as `cpu/armv8.2-a+dotprod`.
 * @property contextTokens the most tokens of one conversation, its answers included.
 * @property memoryBytes bytes of weights, key/value cache and what the runtime works in.
 */
public data class LLMInfo(
    public val engine: String,
    public val runtime: String,
    public val model: String,
    public val quantization: String,
    public val backend: String,
    public val contextTokens: Int,
    public val memoryBytes: Long,
)
