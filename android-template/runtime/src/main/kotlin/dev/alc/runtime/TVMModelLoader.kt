package dev.alc.runtime

import dev.alc.engine.ChatTemplate
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.KvShape
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadStage
import dev.alc.engine.LoadedModel
import dev.alc.engine.MemoryBudgetException
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import dev.alc.engine.ModelInfo
import dev.alc.engine.ModelLoader
import dev.alc.engine.Tokenizer
import kotlinx.coroutines.ensureActive
import java.io.File
import kotlin.coroutines.CoroutineContext
import kotlin.coroutines.coroutineContext

/**
 * Opens compiled packages for [runtime]: a plain folder, or the stamp that a deployment wrote.
 *
 * Everything that can be known without running native code is checked first: schema, TVM version,
 * ABI, processor, layout, sizes, the hash of what will be executed and, if asked, the other hashes.
 * Weights are mapped where they lie and not copied. They are read from when nothing speaks against
 * the package any more, while the tokenizer is read, beside that the code is opened and, after both,
 * the first prompt is computed. The model's library is copied to [codeCache], because what it comes
 * from may lie where nothing can be executed.
 *
 * It does not download or unpack anything.
 */
public class TVMModelLoader(
    private val runtime: TVMRuntime,
    private val codeCache: File,
) : ModelLoader {
    override suspend fun load(
        path: String,
        options: LoadOptions,
        onProgress: (LoadProgress) -> Unit,
    ): LoadedModel = Loading(path, options, onProgress, coroutineContext).run()

    private inner class Loading(
        path: String,
        private val options: LoadOptions,
        private val onProgress: (LoadProgress) -> Unit,
        private val context: CoroutineContext,
    ) {
        private val files = ModelFiles.open(path)
        private val description = files.description
        private val library = "lib/${runtime.abi}/$LIBRARY"
        private val workBytes = description.memory?.run { workspace + overhead } ?: 0
        private val variant = variantOf(checkStamp())

        fun run(): LoadedModel {
            checkSizes()
            checkMemory()
            checkFiles()
            // The disk works while the processor does; what is small and needed first goes first.
            val ahead = Weights.readAhead(files, listOf(library, TOKENIZER, TEMPLATE))
            // The tokenizer takes as long as all else, and needs nothing of it.
            val words = Background("alc-tokenizer", ::readWords)
            try {
                return open(words, ahead)
            } catch (failure: Throwable) {
                words.join()
                ahead.close()
                throw failure
            }
        }

        private fun readWords() = Words(
            TVMTokenizer.read(files[TOKENIZER].file),
            if (TEMPLATE in files) CompiledChatTemplate.read(files[TEMPLATE].file) else null,
        )

        private fun open(words: Background<Words>, ahead: ReadAhead): LoadedModel {
            val machine = ModelMachine(
                runtime,
                ModelLibraries.open(runtime, copyLibrary().path),
                variant.suffix,
            )
            try {
                return start(machine, words, ahead)
            } catch (failure: Throwable) {
                machine.close()
                throw failure
            }
        }

        private fun start(
            machine: ModelMachine,
            words: Background<Words>,
            ahead: ReadAhead,
        ): LoadedModel {
            val index = Weights.readIndex(files)
            val metadata = readMetadata(machine)
            report(LoadStage.TOKENIZER, 0, 1)
            val (tokenizer, template) = words.await()
            checkTokenizer(tokenizer)
            report(LoadStage.TOKENIZER, 1, 1)
            checkLibrary(metadata)
            Weights.check(index, metadata)
            val cores = Cores()
            val wanted = options.threads ?: cores.bigCount().coerceAtMost(MOST_BY_ITSELF)
            val threads = native("cannot start $wanted threads") {
                NativeBindings.configureThreads(wanted)
            }
            if (options.bigCoresOnly) {
                // The system may not let them; then they go where it puts them.
                cores.big()?.let { NativeBindings.keepOnCores(it.toIntArray()) }
            }
            val parameters = mapWeights(index)
            try {
                report(LoadStage.START, 0, 1)
                val shape = shape()
                val module = TVMModule(runtime, shape, machine, parameters)
                try {
                    report(LoadStage.START, 1, 1)
                } catch (failure: Throwable) {
                    module.close()
                    throw failure
                }
                return TVMLoadedModel(module, info(shape.kv, threads), shape, tokenizer, template, ahead)
            } catch (failure: Throwable) {
                parameters.close()
                throw failure
            }
        }

        private fun mapWeights(index: Weights.Index): OwnedHandle {
            val total = index.shards.sumOf { it.nbytes }
            var done = 0L
            report(LoadStage.WEIGHTS, 0, total)
            return Weights.map(runtime, files, index) { bytes ->
                done += bytes
                report(LoadStage.WEIGHTS, done, total)
            }
        }

        /** The package's code for this ABI. Refuses what this runtime cannot run, by name. */
        private fun checkStamp(): CompiledTarget {
            val stamp = description.stamp
            if (stamp.tvm != runtime.version) {
                refuse("compiled by TVM ${stamp.tvm}, this runtime is TVM ${runtime.version}")
            }
            if (description.layout != LAYOUT) {
                refuse("its weights have the layout ${description.layout}, not $LAYOUT")
            }
            val known = stamp.targets.keys.joinToString()
            val target = stamp.targets[runtime.abi]
                ?: refuse("it has code for $known, not ${runtime.abi}")
            if (target.backend != CPU_BACKEND) {
                refuse("compiled for ${target.backend}, this runtime computes on the CPU")
            }
            if (target.variants.isEmpty()) {
                throw ModelDamagedException("${description.name} lists no variant of its code")
            }
            return target
        }

        /** The best of the library's variants that this processor runs, or the one asked for. */
        private fun variantOf(target: CompiledTarget): CompiledVariant {
            val names = target.variants.joinToString { it.name }
            val asked = options.cpuVariant
                ?: return target.variants.find { missing(it).isEmpty() } ?: refuse(
                    "it has code for $names, of which the last needs " +
                        "${missing(target.variants.last()).joinToString()}, " +
                        "which this processor lacks",
                )
            val variant = target.variants.find { it.name == asked } ?: throw InvalidRequestException(
                "${description.name} has no variant '$asked' for ${runtime.abi}: it has $names",
            )
            if (missing(variant).isNotEmpty()) {
                throw InvalidRequestException(
                    "the variant $asked of ${description.name} needs " +
                        "${missing(variant).joinToString()}, which this processor lacks",
                )
            }
            return variant
        }

        /** What this processor lacks of a variant's needs. */
        private fun missing(variant: CompiledVariant): List<String> =
            variant.cpuFeatures.filter { it !in runtime.cpuFeatures }

        private fun refuse(why: String): Nothing =
            throw ModelIncompatibleException("${description.name}: $why")

        /** Refuses sizes that no model has, before anything is computed with them. */
        private fun checkSizes() {
            val sizes = description.kvCache.run { listOf(layers, kvHeads, headDim, pageSize) } +
                description.run { listOf(vocabSize, contextWindow, prefillChunk) }
            if (sizes.any { it !in 1..MOST }) {
                throw ModelDamagedException("${description.name} has a size outside of 1 to $MOST: $sizes")
            }
        }

        /** Refuses what would take more memory than it may, while it takes none. */
        private fun checkMemory() {
            val cache = shape().pool().allocatedBytes
            val needed = description.weightsBytes + cache + workBytes
            if (needed > options.maxMemoryBytes) {
                throw MemoryBudgetException(
                    "${description.name} needs ${mib(needed)} MiB: ${mib(description.weightsBytes)} for " +
                        "weights, ${mib(cache)} for the cache of ${shape().capacityTokens} tokens, " +
                        "${mib(workBytes)} to work in; it may have ${options.maxMemoryBytes / BYTES_PER_MIB} MiB",
                )
            }
        }

        private fun checkFiles() {
            val entries = files.all
            val total = entries.sumOf { it.size }
            var done = 0L
            report(LoadStage.CHECK, 0, total)
            for (entry in entries) {
                files.checkSize(entry)
                if (options.verifyHashes) {
                    files.checkHash(entry) { count ->
                        done += count
                        report(LoadStage.CHECK, done, total)
                    }
                }
            }
            report(LoadStage.CHECK, total, total)
        }

        /** Refuses a tokenizer of another model, whose tokens this one could not embed. */
        private fun checkTokenizer(tokenizer: Tokenizer) {
            val size = description.vocabSize
            if (tokenizer.vocabSize > size || description.eosTokenIds.any { it !in 0 until size }) {
                throw ModelIncompatibleException(
                    "the tokenizer has ${tokenizer.vocabSize} tokens and answers end with " +
                        "${description.eosTokenIds}, the model knows $size tokens",
                )
            }
        }

        private fun readMetadata(machine: ModelMachine): LibraryMetadata {
            val source = "the library's _metadata"
            return parseDocument(source, machine.metadata(), LibraryMetadata.serializer(), schema = null)
        }

        /** Refuses a library that was not compiled for this package. */
        private fun checkLibrary(metadata: LibraryMetadata) {
            val facts = listOf(
                Triple("quantization", metadata.quantization, description.quantization),
                Triple("prefill chunk", metadata.prefillChunk, description.prefillChunk),
                Triple("vocabulary", metadata.model.vocabSize, description.vocabSize),
                Triple("key/value cache", metadata.kvCache, description.kvCache),
            )
            for ((what, actual, expected) in facts) {
                if (actual != expected) {
                    throw ModelIncompatibleException(
                        "the library's $what is $actual, the package says $expected",
                    )
                }
            }
            if (description.contextWindow > metadata.contextWindow) {
                throw ModelIncompatibleException(
                    "the library takes ${metadata.contextWindow} tokens, " +
                        "the package says ${description.contextWindow}",
                )
            }
        }

        private fun copyLibrary(): File {
            val source = files[library]
            report(LoadStage.LIBRARY, 0, source.size)
            val copy = CodeCache(codeCache).place(source)
            report(LoadStage.LIBRARY, source.size, source.size)
            return copy
        }

        private fun shape(): ModelShape {
            val cache = description.kvCache
            val bytes = KV_BYTES[cache.dtype]
                ?: throw ModelIncompatibleException("a key/value cache of ${cache.dtype}")
            val capacity = options.contextTokens ?: description.contextWindow
            return ModelShape(
                vocabSize = description.vocabSize,
                contextWindow = minOf(description.contextWindow, capacity),
                prefillChunk = description.prefillChunk,
                maxSequences = options.maxSessions,
                capacityTokens = capacity,
                kv = KvShape(cache.layers, cache.kvHeads, cache.headDim, bytes, cache.pageSize),
            )
        }

        private fun info(kv: KvShape, threads: Int) = ModelInfo(
            name = description.name,
            architecture = description.architecture,
            quantization = description.quantization,
            packageId = files.id,
            runtime = "tvm ${runtime.version}",
            backend = "$CPU_BACKEND/${variant.name}",
            abi = runtime.abi,
            threads = threads,
            vocabSize = description.vocabSize,
            contextWindow = description.contextWindow,
            prefillChunk = description.prefillChunk,
            eosTokenIds = description.eosTokenIds.toSet(),
            kv = kv,
            weightsBytes = description.weightsBytes,
            workBytes = workBytes,
        )

        /** Tells how far it is; a good place to stop when nobody waits any more. */
        private fun report(stage: LoadStage, done: Long, total: Long) {
            onProgress(LoadProgress(stage, done, total))
            context.ensureActive()
        }
    }

    private data class Words(val tokenizer: Tokenizer, val template: ChatTemplate?)

    private companion object {
        const val LAYOUT = "rows8/1"
        const val LIBRARY = "libmodel.so"
        const val TOKENIZER = "tokenizer.alc"
        const val TEMPLATE = "chat_template.alc.json"
        const val MOST = 1 shl 24

        /** Decoding waits for memory, which four cores keep busy. */
        const val MOST_BY_ITSELF = 4
        const val BYTES_PER_MIB = 1L shl 20
        val KV_BYTES = mapOf("float16" to 2, "float32" to 4)

        fun mib(bytes: Long): Long = (bytes + BYTES_PER_MIB - 1) / BYTES_PER_MIB
    }
}
