package dev.alc.runtime

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonPrimitive

/**
 * The model's weights: tensors over mapped files, in the order that the compiled functions take.
 */
internal object Weights {
    private const val INDEX = "tensor-cache.json"
    private const val SHARD = ".bin"

    /** The shards of a package in the order of their index, with what lies in them. */
    class Index(val shards: List<Shard>, val order: List<String>)

    /** Reads `tensor-cache.json`. */
    fun readIndex(files: ModelFiles): Index {
        val document = readDocument(files[INDEX].file, TensorCache.serializer(), schema = null)
        val names = document.metadata["params"] as? JsonArray
            ?: throw ModelDamagedException("$INDEX does not say the order of the weights")
        val order = names.map {
            (it as? JsonPrimitive)?.content
                ?: throw ModelDamagedException("$INDEX names a weight by $it")
        }
        return Index(document.records, order)
    }

    /** Refuses an index whose weights are not those that the library was compiled for. */
    fun check(index: Index, library: LibraryMetadata) {
        val tensors = index.shards.flatMap { it.records }.associateBy { it.name }
        if (library.params.map { it.name } != index.order) {
            throw ModelIncompatibleException(
                "the library takes ${library.params.size} weights by other names than the " +
                    "${index.order.size} of $INDEX",
            )
        }
        for (wanted in library.params) {
            val found = tensors[wanted.name]
                ?: throw ModelDamagedException("$INDEX has no tensor ${wanted.name}")
            if (found.dtype != wanted.dtype || found.shape != wanted.shape) {
                throw ModelIncompatibleException(
                    "${wanted.name} is ${found.dtype}${found.shape}, the library takes " +
                        "${wanted.dtype}${wanted.shape}",
                )
            }
        }
    }

    /**
     * Begins to read the index, [names] and the shards ahead, in this order. Before the index is
     * parsed, so by the shards' names, of which shorter ones have lower numbers.
     */
    fun readAhead(files: ModelFiles, names: List<String>): ReadAhead {
        val shards = files.all.map { it.name }.filter { it.endsWith(SHARD) }.sortedBy { it.length }
        return ReadAhead((listOf(INDEX) + names + shards).filter { it in files }.map { files[it] })
    }

    /**
     * Maps every shard and returns an array of the tensors; [onShard] is called with the bytes of
     * each shard when it is mapped, and may throw to stop.
     */
    fun map(
        runtime: TVMRuntime,
        files: ModelFiles,
        index: Index,
        onShard: (Long) -> Unit,
    ): OwnedHandle {
        val tensors = HashMap<String, Long>()
        try {
            for (shard in index.shards) {
                mapShard(files[shard.dataPath], shard, tensors)
                onShard(shard.nbytes)
            }
            val frame = CallFrame(index.order.size * CallFrame.SLOT + CallFrame.SLOT).begin()
            for (name in index.order) {
                frame.handle(
                    tensors[name] ?: throw ModelDamagedException("$INDEX has no tensor $name"),
                )
            }
            return native("cannot gather the weights") {
                OwnedHandle(frame.callForHandle(runtime.function("ffi.Array")))
            }
        } finally {
            tensors.values.forEach(NativeBindings::release)
        }
    }

    private fun mapShard(entry: ModelFiles.Entry, shard: Shard, tensors: HashMap<String, Long>) {
        if (entry.size != shard.nbytes) {
            throw ModelDamagedException(
                "$INDEX says ${shard.nbytes} bytes of ${entry.name}, the package ${entry.size}",
            )
        }
        native("cannot map ${entry.name}") {
            val mapping = NativeBindings.map(entry.file.path.toByteArray(), entry.size)
            try {
                for (record in shard.records) {
                    val type = DataType.parse(record.dtype)
                        ?: throw ModelIncompatibleException("${record.name}: ${record.dtype}")
                    val shape = record.shape.toLongArray()
                    checkBytes(record, type)
                    val tensor = NativeBindings.tensorInMapping(
                        mapping,
                        record.byteOffset,
                        type.bits,
                        shape,
                    )
                    tensors.put(record.name, tensor)?.let(NativeBindings::release)
                }
            } finally {
                NativeBindings.unmap(mapping)
            }
        }
    }

    /** Refuses a tensor that has other bytes than its type and shape, or none. */
    private fun checkBytes(record: TensorRecord, type: DataType) {
        val bits = record.shape.fold(type.width.toLong()) { product, size ->
            if (size < 1 || product > Long.MAX_VALUE / size) 0 else product * size
        }
        if (bits == 0L || bits / Byte.SIZE_BITS != record.nbytes) {
            throw ModelDamagedException(
                "$INDEX: ${record.name} has ${record.nbytes} bytes, which is not " +
                    "${record.dtype}${record.shape}",
            )
        }
    }
}
