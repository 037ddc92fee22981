package dev.alc.engine

import java.nio.FloatBuffer

/**
 * One way of running a model: a backend that can say whether it is usable here and that opens
 * models. The engine knows no other door to native code, so an app can plug in its own.
 */
public interface InferenceStrategy {
    /** A short, stable name for reports, such as `alc`. */
    public val name: String

    /** Says whether this strategy can run here, and if not what is missing. Never throws. */
    public fun isAvailable(): Availability

    /** The loader that opens this strategy's models. */
    public fun loader(): ModelLoader
}

/** Whether an [InferenceStrategy] can run here. */
public sealed interface Availability {
    /** It can; [backend] is what computes, such as `cpu x86-64`. */
    public data class Available(public val backend: String) : Availability

    /** It cannot; each entry of [missing] names one thing that is lacking and why it matters. */
    public data class Unavailable(public val missing: List<String>) : Availability
}

/**
 * A model that is ready to compute: weights, tokenizer, and one pool of key/value cache that its
 * [sessions][openSession] share.
 *
 * A model and its sessions belong to the thread that loaded it. Implementations refuse a call
 * from another thread, and every call after [close], with an [EngineException]; neither may
 * crash the process. The engine keeps to one decode thread for each model.
 */
public interface LoadedModel : AutoCloseable {
    /** What the model is and how large. */
    public val info: ModelInfo

    /** The model's own tokenizer. Safe to use from any thread. */
    public val tokenizer: Tokenizer

    /** The model's own chat template, or null where its checkpoint has none. Safe from any thread. */
    public val chatTemplate: ChatTemplate?

    /** The pool of cache that all sessions draw from. */
    public val cache: CachePool

    /**
     * Opens an empty session.
     *
     * @throws BackendException if [CachePool.maxSessions] are open already.
     */
    public fun openSession(): ModelSession

    /** Frees the cache, the sessions and the weights. Calling it twice does nothing. */
    override fun close()
}

/**
 * One sequence of tokens in the model's key/value cache.
 *
 * The buffers of logits are views over memory of the backend: direct, in native byte order,
 * position 0, limit at the number of floats. They are valid until the next call on any session
 * of the same model; copy what must outlive that.
 */
public interface ModelSession : AutoCloseable {
    /** Tokens in the cache. */
    public val length: Int

    /**
     * Appends [tokens] (1 to [ModelInfo.prefillChunk] of them) and returns the `vocabSize` logits
     * after the last one. The engine cuts longer prompts into chunks, so that a cancellation has
     * a place to take effect.
     *
     * @throws BackendException if the computation fails; the session is then only good for
     *   [reset] and [close].
     */
    public fun prefill(tokens: IntArray): FloatBuffer

    /** Appends one token and returns the `vocabSize` logits after it. Throws as [prefill] does. */
    public fun decode(token: Int): FloatBuffer

    /**
     * Appends [tokens] (1 to [ModelInfo.prefillChunk] of them) and returns `tokens.size *
     * vocabSize` logits in row-major order: row `i` follows token `i`. Throws as [prefill] does.
     */
    public fun verify(tokens: IntArray): FloatBuffer

    /** Drops the newest tokens so that [newLength] remain (0 to [length]). */
    public fun trim(newLength: Int)

    /** A new session that starts with this one's tokens; backends may share the memory. */
    public fun fork(): ModelSession

    /** Drops every token. */
    public fun reset()

    /** Gives the session's cache back. Calling it twice does nothing. */
    override fun close()
}

/**
 * The size of a model's key/value cache, which all its sessions share.
 *
 * @property capacityTokens tokens that fit in all sessions together.
 * @property maxSessions sessions that may be open at the same time.
 * @property allocatedBytes bytes that the backend reserved for the pool.
 */
public data class CachePool(
    public val capacityTokens: Int,
    public val maxSessions: Int,
    public val allocatedBytes: Long,
)

/**
 * The shape of a key/value cache, from which its size follows.
 *
 * @property bytesPerElement 2 for float16, 4 for float32.
 * @property pageTokens tokens to a page; a session always holds whole pages.
 */
public data class KvShape(
    public val layers: Int,
    public val kvHeads: Int,
    public val headDim: Int,
    public val bytesPerElement: Int,
    public val pageTokens: Int,
) {
    /** Bytes that one token takes: keys and values of every layer. */
    public val bytesPerToken: Long
        get() = 2L * layers * kvHeads * headDim * bytesPerElement
}

/**
 * What a loaded model is.
 *
 * @property name the package's name, such as `smollm2-135m-instruct`.
 * @property architecture the family whose code runs it, such as `llama`.
 * @property quantization the name of the weights' form, such as `q4f16_1`.
 * @property packageId the package's own identity (a hash), or an empty text if it has none.
 * @property runtime the native runtime and its version, such as `tvm 0.27.0.post1`.
 * @property backend what computes and the variant of the model's code that runs there, such as
 *   `cpu/armv8.2-a+dotprod`.
 * @property abi the Android ABI of the native code, such as `arm64-v8a`.
 * @property threads threads that one forward pass uses.
 * @property contextWindow the most tokens that one session may hold.
 * @property prefillChunk the most tokens of one [ModelSession.prefill].
 * @property eosTokenIds tokens that end an answer.
 * @property weightsBytes bytes of the mapped weights.
 * @property workBytes bytes that the backend works in beside weights and cache, as far as the
 *   package says; 0 if it does not.
 */
public data class ModelInfo(
    public val name: String,
    public val architecture: String,
    public val quantization: String,
    public val packageId: String,
    public val runtime: String,
    public val backend: String,
    public val abi: String,
    public val threads: Int,
    public val vocabSize: Int,
    public val contextWindow: Int,
    public val prefillChunk: Int,
    public val eosTokenIds: Set<Int>,
    public val kv: KvShape,
    public val weightsBytes: Long,
    public val workBytes: Long = 0,
)
