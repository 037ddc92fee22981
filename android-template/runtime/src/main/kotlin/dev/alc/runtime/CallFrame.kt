package dev.alc.runtime

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * The arguments of one call of a TVM function, in memory that native code reads in place.
 *
 * Slots of 16 bytes grow from the start, the bytes that slots point to grow from the end
 * downwards. Build it, [call], read the result, and use it again; nothing is allocated for a call
 * except a text in its result. Not for more than one thread.
 */
internal class CallFrame(capacity: Int = 1 shl 12) {
    private val memory = ByteBuffer.allocateDirect(capacity).order(ByteOrder.nativeOrder())
    private var count = 0
    private var regionStart = capacity

    /** Starts a new call. */
    fun begin(): CallFrame {
        count = 0
        regionStart = memory.capacity()
        return this
    }

    fun none(): CallFrame = slot(NONE, 0, 0)

    fun int(value: Long): CallFrame = slot(INT, 0, value)

    fun bool(value: Boolean): CallFrame = slot(BOOL, 0, if (value) 1 else 0)

    fun float(value: Double): CallFrame = slot(FLOAT, 0, value.toRawBits())

    fun type(value: DataType): CallFrame = slot(DATA_TYPE, 0, value.bits)

    /** The CPU. */
    fun device(): CallFrame = slot(DEVICE, 0, CPU.toLong())

    fun text(value: String): CallFrame {
        val bytes = value.toByteArray()
        val start = region(bytes.size, 1)
        for (index in bytes.indices) memory.put(start + index, bytes[index])
        return slot(TEXT, bytes.size, start.toLong())
    }

    /** A shape of one dimension. */
    fun dims(first: Long): CallFrame {
        val start = region(Long.SIZE_BYTES, Long.SIZE_BYTES)
        memory.putLong(start, first)
        return slot(DIMS, 1, start.toLong())
    }

    /** A shape of three dimensions. */
    fun dims(first: Long, second: Long, third: Long): CallFrame {
        val start = region(3 * Long.SIZE_BYTES, Long.SIZE_BYTES)
        memory.putLong(start, first)
        memory.putLong(start + Long.SIZE_BYTES, second)
        memory.putLong(start + 2 * Long.SIZE_BYTES, third)
        return slot(DIMS, 3, start.toLong())
    }

    /** An object, which stays the caller's. */
    fun handle(value: Long): CallFrame = slot(OBJECT, 0, value)

    /** Calls for nothing: a result that is an object is released. */
    fun call(function: Long) {
        NativeBindings.call(function, memory, count)
        if (memory.getInt(0) == OBJECT) NativeBindings.release(payload())
    }

    /** Calls for an object, which is the caller's to release. */
    fun callForHandle(function: Long): Long {
        NativeBindings.call(function, memory, count)
        expect(OBJECT, "an object")
        return payload()
    }

    /** Calls for an object or nothing (0). */
    fun callForHandleOrNull(function: Long): Long {
        NativeBindings.call(function, memory, count)
        return if (memory.getInt(0) == NONE) 0 else payload().also { expect(OBJECT, "an object") }
    }

    /** Calls for a whole number. */
    fun callForInt(function: Long): Long {
        NativeBindings.call(function, memory, count)
        expect(INT, "a number")
        return payload()
    }

    /** Calls for a text. */
    fun callForText(function: Long): String {
        val bytes = NativeBindings.call(function, memory, count)
        expect(TEXT, "a text")
        return String(checkNotNull(bytes))
    }

    private fun payload(): Long = memory.getLong(PAYLOAD)

    private fun expect(tag: Int, what: String) {
        val actual = memory.getInt(0)
        if (actual == tag) return
        if (actual == OBJECT) NativeBindings.release(payload())
        throw NativeException("TypeError", "a result should be $what, but has tag $actual", "")
    }

    private fun slot(tag: Int, length: Int, payload: Long): CallFrame {
        val at = count * SLOT
        check(at + SLOT <= regionStart) { "the call frame of ${memory.capacity()} bytes is full" }
        memory.putInt(at, tag).putInt(at + Int.SIZE_BYTES, length).putLong(at + PAYLOAD, payload)
        count++
        return this
    }

    private fun region(bytes: Int, alignment: Int): Int {
        val start = (regionStart - bytes) / alignment * alignment
        check(start >= (count + 1) * SLOT) {
            "the call frame of ${memory.capacity()} bytes is full"
        }
        regionStart = start
        return start
    }

    companion object {
        /** Bytes of one slot. */
        const val SLOT: Int = 16
        private const val PAYLOAD = 8
        private const val CPU = 1

        // As in core/call.h.
        private const val NONE = 0
        private const val INT = 1
        private const val BOOL = 2
        private const val FLOAT = 3
        private const val DATA_TYPE = 5
        private const val DEVICE = 6
        private const val TEXT = 32
        private const val DIMS = 34
        private const val OBJECT = 35
    }
}

/** The type of a tensor's elements: a DLPack type code and a number of bits, one lane. */
internal data class DataType(val code: Int, val width: Int) {
    /** The eight bytes of a DLDataType, little-endian. */
    val bits: Long
        get() = code.toLong() or (width.toLong() shl 8) or (1L shl 16)

    companion object {
        val INT32: DataType = DataType(0, 32)
        val FLOAT32: DataType = DataType(2, 32)
        private val CODES = mapOf("int" to 0, "uint" to 1, "float" to 2, "bfloat" to 4)
        private val NAME = Regex("([a-z]+)([0-9]{1,2})")

        /** The type that TVM calls [name], such as `float16`; null if it is none of these. */
        fun parse(name: String): DataType? {
            val match = NAME.matchEntire(name) ?: return null
            val code = CODES[match.groupValues[1]] ?: return null
            return DataType(code, match.groupValues[2].toInt())
        }
    }
}
