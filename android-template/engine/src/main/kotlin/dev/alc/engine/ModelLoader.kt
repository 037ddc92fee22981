package dev.alc.engine

/** Opens model packages: checks the files, maps the weights, starts the native code. */
public interface ModelLoader {
    /**
     * Opens the model at [path]: a package folder, or the stamp file that a deployment wrote.
     *
     * The model belongs to the thread that this runs on, so call it on the thread that is to
     * compute. It checks for cancellation between files and gives back everything it took when
     * cancelled or when it fails.
     *
     * @param onProgress called on the same thread, from time to time; must be quick.
     * @throws ModelNotFoundException if a file is missing.
     * @throws ModelDamagedException if a file's size or hash is not what the package says.
     * @throws ModelIncompatibleException if this runtime cannot run the package.
     * @throws InvalidRequestException if [LoadOptions.cpuVariant] cannot run.
     * @throws MemoryBudgetException if it needs more than [LoadOptions.maxMemoryBytes].
     * @throws StorageException if something has to be written and cannot be.
     * @throws BackendException if the native code fails.
     */
    public suspend fun load(
        path: String,
        options: LoadOptions = LoadOptions(),
        onProgress: (LoadProgress) -> Unit = {},
    ): LoadedModel
}

/**
 * How to open a model.
 *
 * @property threads threads for one forward pass; null takes as many as the processor has big
 *   cores, 4 at most.
 * @property contextTokens tokens that the cache pool holds, all sessions together; null takes
 *   the model's context window. More than the window is allowed: it gives room for more sessions.
 * @property maxSessions sessions that may be open at the same time.
 * @property verifyHashes whether to read every file and compare its sha256. Without it only
 *   sizes and the build stamp are compared.
 * @property maxMemoryBytes the most bytes that the model may take: weights, cache pool, and what
 *   the backend works in. A model that needs more is refused before anything is mapped.
 * @property cpuVariant the variant of the model's library that is to run, such as `armv8-a`; null
 *   takes the best one that the processor can run. One that is not there, or that the processor
 *   cannot run, is refused.
 * @property bigCoresOnly whether the threads of a forward pass stay on the processor's big cores, so
 *   that none waits for one on a small core. Else the system moves them as load and heat ask for.
 *   Where the system does not tell cores apart, or does not allow it, it changes nothing.
 */
public data class LoadOptions(
    public val threads: Int? = null,
    public val contextTokens: Int? = null,
    public val maxSessions: Int = 4,
    public val verifyHashes: Boolean = false,
    public val maxMemoryBytes: Long = Long.MAX_VALUE,
    public val cpuVariant: String? = null,
    public val bigCoresOnly: Boolean = false,
) {
    init {
        require(threads == null || threads in 1..64) { "threads must be 1 to 64, not $threads" }
        require(contextTokens == null || contextTokens > 0) { "contextTokens must be positive" }
        require(maxSessions in 1..64) { "maxSessions must be 1 to 64, not $maxSessions" }
        require(maxMemoryBytes > 0) { "maxMemoryBytes must be positive, not $maxMemoryBytes" }
    }
}

/** How far a [ModelLoader] is; [doneBytes] of [totalBytes] of the files of this [stage]. */
public data class LoadProgress(
    public val stage: LoadStage,
    public val doneBytes: Long,
    public val totalBytes: Long,
)

/** The parts of loading, in order. */
public enum class LoadStage {
    /** Reading the package's description, comparing sizes and, if asked, hashes. */
    CHECK,

    /** Copying the model's library to where it may be executed, and opening it. */
    LIBRARY,

    /** Reading tokenizer and chat template, as far as that is not done yet. */
    TOKENIZER,

    /** Mapping the weights. */
    WEIGHTS,

    /** Starting the virtual machine and reserving the cache. */
    START,
}
