package dev.alc.engine

/**
 * Everything that can go wrong in the engine, by kind. [kind] is a stable word for documents and
 * reports; the message says what failed and what it needed.
 */
public sealed class EngineException(
    public val kind: String,
    message: String,
    cause: Throwable? = null,
) : RuntimeException(message, cause)

/** A model, or a file of it, is not there. */
public class ModelNotFoundException(message: String, cause: Throwable? = null) :
    EngineException("model-not-found", message, cause)

/** A file of the model has another size, hash or structure than it should. */
public class ModelDamagedException(message: String, cause: Throwable? = null) :
    EngineException("model-damaged", message, cause)

/** The model is whole, but not for this runtime: another TVM version, ABI, layout or schema. */
public class ModelIncompatibleException(message: String, cause: Throwable? = null) :
    EngineException("model-incompatible", message, cause)

/** The native code reported an error; the message is its own. */
public class BackendException(message: String, cause: Throwable? = null) :
    EngineException("backend", message, cause)

/**
 * The native code did not return in time. It cannot be interrupted, so the engine that it hangs in
 * serves nobody any more and can only be closed.
 */
public class BackendTimeoutException(message: String) : EngineException("backend-timeout", message)

/** The strategy cannot run here; the message lists what is missing. */
public class StrategyUnavailableException(message: String) :
    EngineException("strategy-unavailable", message)

/** The engine, model or session is in the wrong state: not loaded yet, busy, or closed. */
public class LifecycleException(message: String) : EngineException("lifecycle", message)

/** A request that can never be served: an option out of range, no tokens, unknown ids. */
public class InvalidRequestException(message: String, cause: Throwable? = null) :
    EngineException("invalid-request", message, cause)

/** The prompt and the answer it asks for do not fit the model's context window. */
public class ContextFullException(message: String) : EngineException("context-full", message)

/** The model needs more memory than it may have; nothing of it was mapped or reserved. */
public class MemoryBudgetException(message: String) : EngineException("memory-budget", message)

/** There is no key/value cache left, even after dropping idle conversations. */
public class CacheBudgetException(message: String) : EngineException("cache-budget", message)

/** More requests are waiting than the queue holds. */
public class QueueFullException(message: String) : EngineException("queue-full", message)

/** The logits hold NaN, or no token is possible. */
public class LogitsException(message: String) : EngineException("logits", message)

/** The model's chat template cannot be read or refused the conversation. */
public class ChatTemplateException(message: String, cause: Throwable? = null) :
    EngineException("chat-template", message, cause)

/** A file cannot be written, such as on a full disk. */
public class StorageException(message: String, cause: Throwable? = null) :
    EngineException("storage", message, cause)
