package dev.alc.runtime.tokenizer

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import java.nio.BufferUnderflowException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.CRC32

/**
 * The contents of a `tokenizer.alc`, version 1; the compiler's `tokenizer.py` describes the
 * format, word for word in this order.
 */
internal class TokenizerData(
    val startTokens: IntArray,
    private val ends: IntArray,
    /** Left, right and resulting token of each merge, in order of rank. */
    val merges: IntArray,
    val runs: IntArray,
    private val types: ByteArray,
    private val blob: ByteArray,
) {
    val size: Int
        get() = ends.size

    fun start(id: Int): Int = if (id == 0) 0 else ends[id - 1]

    fun length(id: Int): Int = ends[id] - start(id)

    fun bytes(id: Int): ByteArray = blob.copyOfRange(start(id), ends[id])

    fun isControl(id: Int): Boolean = types[id] == CONTROL

    fun isUserDefined(id: Int): Boolean = types[id] == USER_DEFINED

    fun isNormal(id: Int): Boolean = types[id] == NORMAL

    fun contentEquals(id: Int, other: ByteArray): Boolean {
        val start = start(id)
        return length(id) == other.size && other.indices.all { blob[start + it] == other[it] }
    }

    fun singleByte(id: Int): Int = blob[start(id)].toInt() and 0xff

    companion object {
        private const val NORMAL: Byte = 1
        private const val CONTROL: Byte = 3
        private const val USER_DEFINED: Byte = 4
        private const val VERSION = 1
        private const val KIND_BYTE_BPE = 1
        private const val SPLITTER_GPT2 = 1
        private val MAGIC = "ALCTOKEN".toByteArray(Charsets.US_ASCII)

        fun parse(bytes: ByteArray, name: String): TokenizerData {
            val data = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
            if (bytes.size < MAGIC.size + 4 || !MAGIC.indices.all { bytes[it] == MAGIC[it] }) {
                throw ModelDamagedException("$name is not a tokenizer.alc")
            }
            val sum = CRC32().apply { update(bytes, 0, bytes.size - 4) }.value.toInt()
            if (data.getInt(bytes.size - 4) != sum) {
                throw ModelDamagedException("$name is damaged: its checksum is wrong")
            }
            data.position(MAGIC.size)
            data.limit(bytes.size - 4)
            return try {
                read(data, name)
            } catch (failure: BufferUnderflowException) {
                throw ModelDamagedException("$name is truncated", failure)
            } catch (failure: NegativeArraySizeException) {
                throw ModelDamagedException("$name counts wrongly", failure)
            }
        }

        private fun read(data: ByteBuffer, name: String): TokenizerData {
            fun demand(what: String, known: Int) {
                val value = data.getInt()
                if (value != known) {
                    throw ModelIncompatibleException("$name has the $what $value, not $known")
                }
            }
            demand("version", VERSION)
            demand("kind of model", KIND_BYTE_BPE)
            demand("kind of splitter", SPLITTER_GPT2)
            val tokens = data.getInt()
            val merges = data.getInt()
            val runs = data.getInt()
            val start = data.getInt()
            val size = data.getInt()
            val needed = 4L * (start + tokens + 3L * merges + runs) + tokens + size
            if (data.remaining().toLong() != needed) {
                throw ModelDamagedException("$name holds ${data.remaining()} bytes of data, not $needed")
            }
            return TokenizerData(
                startTokens = ints(data, start),
                ends = ints(data, tokens),
                merges = ints(data, 3 * merges),
                runs = ints(data, runs),
                types = ByteArray(tokens).also(data::get),
                blob = ByteArray(size).also(data::get),
            )
        }

        private fun ints(data: ByteBuffer, count: Int): IntArray {
            val result = IntArray(count)
            data.asIntBuffer().get(result)
            data.position(data.position() + 4 * count)
            return result
        }
    }
}
