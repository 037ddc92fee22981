package dev.alc.runtime

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import kotlinx.serialization.DeserializationStrategy
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.io.File

/** `package.json`: what a compiled model is and which files it has. */
@Serializable
internal class PackageDescription(
    val schema: String,
    val name: String,
    val architecture: String,
    val quantization: String,
    val layout: String,
    val stamp: BuildStamp,
    @SerialName("vocab_size") val vocabSize: Int,
    @SerialName("context_window") val contextWindow: Int,
    @SerialName("prefill_chunk") val prefillChunk: Int,
    @SerialName("eos_token_ids") val eosTokenIds: List<Int>,
    @SerialName("kv_cache") val kvCache: CacheDescription,
    @SerialName("weights_bytes") val weightsBytes: Long,
    val memory: MemoryDescription? = null,
    val files: Map<String, FileDescription>,
)

/** What the package was compiled with and for. */
@Serializable
internal class BuildStamp(
    val tvm: String,
    @SerialName("source_sha256") val sourceSha256: String,
    val targets: Map<String, CompiledTarget>,
)

/** The backend whose kernels run on the processor itself. */
internal const val CPU_BACKEND = "cpu"

/** One ABI that the package has code for. */
@Serializable
internal class CompiledTarget(
    val triple: String,
    val variants: List<CompiledVariant>,
    val backend: String = CPU_BACKEND,
)

/**
 * Code for one instruction set: the library's functions whose names end in [suffix]. A target names
 * the best first.
 */
@Serializable
internal class CompiledVariant(
    val name: String,
    @SerialName("cpu_features") val cpuFeatures: List<String>,
    val suffix: String,
)

@Serializable
internal data class CacheDescription(
    val layers: Int,
    @SerialName("kv_heads") val kvHeads: Int,
    @SerialName("head_dim") val headDim: Int,
    val dtype: String,
    @SerialName("page_size") val pageSize: Int,
)

/** Bytes that running the model takes beside its weights and cache. */
@Serializable
internal class MemoryDescription(val workspace: Long, val overhead: Long)

/** The size and hash that a file should have; a deployment's stamp also says where it lies. */
@Serializable
internal class FileDescription(val sha256: String, val size: Long, val path: String? = null)

/** The stamp of a deployment: the files of a package by their names in it. */
@Serializable
internal class InstalledModel(
    val schema: String,
    val `package`: String,
    val files: Map<String, FileDescription>,
)

/** `tensor-cache.json`, in MLC's format. */
@Serializable
internal class TensorCache(val metadata: JsonObject, val records: List<Shard>)

/** A file of weights. */
@Serializable
internal class Shard(
    val dataPath: String,
    val nbytes: Long,
    val records: List<TensorRecord>,
)

/** A tensor in a file of weights. */
@Serializable
internal class TensorRecord(
    val name: String,
    val shape: List<Long>,
    val dtype: String,
    val nbytes: Long,
    val byteOffset: Long,
)

/** What the model's own `_metadata` function says, as far as it is compared with the package. */
@Serializable
internal class LibraryMetadata(
    val quantization: String,
    @SerialName("context_window_size") val contextWindow: Int,
    @SerialName("prefill_chunk_size") val prefillChunk: Int,
    @SerialName("kv_cache") val kvCache: CacheDescription,
    @SerialName("model_config") val model: LibraryModel,
    val params: List<LibraryParameter>,
)

@Serializable
internal class LibraryModel(@SerialName("vocab_size") val vocabSize: Int)

@Serializable
internal class LibraryParameter(val name: String, val shape: List<Long>, val dtype: String)

private val json = Json { ignoreUnknownKeys = true }

/**
 * Reads a JSON document of a package.
 *
 * @throws ModelIncompatibleException if it has another `schema` than [schema].
 * @throws ModelDamagedException if it is no JSON, or lacks something.
 */
internal fun <T> readDocument(file: File, type: DeserializationStrategy<T>, schema: String?): T {
    val text = reading(file) { file.readText() }
    return parseDocument(file.toString(), text, type, schema)
}

/** As [readDocument], for a text that came from [source]. */
internal fun <T> parseDocument(
    source: String,
    text: String,
    type: DeserializationStrategy<T>,
    schema: String?,
): T = try {
    val document = json.parseToJsonElement(text)
    if (schema != null) {
        val actual = ((document as? JsonObject)?.get("schema") as? JsonPrimitive)?.content
        if (actual != schema) {
            throw ModelIncompatibleException("$source has the schema $actual, expected $schema")
        }
    }
    json.decodeFromJsonElement(type, document)
} catch (problem: SerializationException) {
    throw ModelDamagedException("$source: ${problem.message?.lines()?.first()}", problem)
} catch (problem: IllegalArgumentException) {
    throw ModelDamagedException("$source: ${problem.message?.lines()?.first()}", problem)
}
