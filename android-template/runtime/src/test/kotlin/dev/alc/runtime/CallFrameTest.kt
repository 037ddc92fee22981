package dev.alc.runtime

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Values cross into native code and back unchanged, and native errors arrive with their kind. */
class CallFrameTest {
    private lateinit var runtime: TVMRuntime
    private val frame = CallFrame()

    @Before
    fun load() {
        runtime = TestFiles.runtime()
    }

    @Test
    fun `texts keep every character`() {
        val texts =
            listOf("", "ab", "seven77", "eight888", "héllo 😀 z", "a\u0000b", "日本".repeat(200))
        for (text in texts) assertEquals(text, roundTrip { text(text) })
    }

    @Test
    fun `an unpaired surrogate becomes a question mark as everywhere in Java`() {
        assertEquals("a?b", roundTrip { text("a\uD83Db") })
    }

    @Test
    fun `numbers and truth values keep their values`() {
        val make = runtime.function("ffi.Array")
        val array = frame.begin().int(Long.MIN_VALUE).bool(true).float(2.5).none().dims(3, 4, 5)
            .type(DataType.FLOAT32).device().callForHandle(make)
        val size = runtime.function("ffi.ArraySize")
        assertEquals(7L, frame.begin().handle(array).callForInt(size))
        val item = runtime.function("ffi.ArrayGetItem")
        assertEquals(Long.MIN_VALUE, frame.begin().handle(array).int(0).callForInt(item))
        assertEquals(0L, frame.begin().handle(array).int(3).callForHandleOrNull(item))
        NativeBindings.release(array)
    }

    @Test
    fun `a native error has its kind and its message`() {
        val item = runtime.function("ffi.ArrayGetItem")
        val error = assertThrows(NativeException::class.java) {
            frame.begin().int(1).int(0).call(item)
        }
        assertEquals("TypeError", error.kind)
        assertTrue(error.detail, "Mismatched type on argument #0" in error.detail)
    }

    @Test
    fun `a native error tells of characters of every length`() {
        val load = runtime.function("ffi.ModuleLoadFromFile")
        for (name in listOf("é", "日本", "😀👩‍👩‍👧", "a\u0001b")) {
            val error = assertThrows(NativeException::class.java) {
                frame.begin().text("/no/such/$name.so").call(load)
            }
            assertTrue(error.detail, "/no/such/$name.so" in error.detail)
        }
    }

    @Test
    fun `bytes that are no UTF-8 become replacement characters in a native error`() {
        val load = runtime.function("ffi.ModuleLoadFromFile")
        val path = byteArrayOf('/'.code.toByte(), 0xff.toByte(), 0xc3.toByte(), '.'.code.toByte()) + "so".toByteArray()
        val memory = ByteBuffer.allocateDirect(CallFrame.SLOT + path.size).order(ByteOrder.nativeOrder())
        memory.putInt(TEXT).putInt(path.size).putLong(CallFrame.SLOT.toLong()).put(path)
        val error = assertThrows(NativeException::class.java) { NativeBindings.call(load, memory, 1) }
        assertTrue(error.detail, "/\ufffd\ufffd.so" in error.detail)
    }

    @Test
    fun `failed calls hold nothing`() {
        val item = runtime.function("ffi.ArrayGetItem")
        val make = runtime.function("ffi.Array")
        val before = NativeBindings.heldHandles()
        repeat(1000) {
            assertThrows(NativeException::class.java) { frame.begin().text("a text").int(0).call(item) }
            assertThrows(NativeException::class.java) { frame.begin().dims(1).handle(0).call(make) }
            assertThrows(NativeException::class.java) { frame.begin().int(1).callForInt(make) }
        }
        assertEquals(before, NativeBindings.heldHandles())
    }

    @Test
    fun `a result of another kind than asked for is an error and is released`() {
        val make = runtime.function("ffi.Array")
        val error = assertThrows(NativeException::class.java) {
            frame.begin().int(1).callForText(make)
        }
        assertEquals("TypeError", error.kind)
    }

    @Test
    fun `a call after a failed one has none of its arguments`() {
        val make = runtime.function("ffi.Array")
        assertThrows(NativeException::class.java) {
            frame.begin().int(7).text("left over").handle(0).call(make)
        }
        val size = runtime.function("ffi.ArraySize")
        val array = frame.begin().int(1).callForHandle(make)
        assertEquals(1L, frame.begin().handle(array).callForInt(size))
        NativeBindings.release(array)
    }

    @Test
    fun `a full frame refuses more`() {
        val small = CallFrame(2 * CallFrame.SLOT).begin().int(1).int(2)
        assertThrows(IllegalStateException::class.java) { small.int(3) }
        assertThrows(IllegalStateException::class.java) {
            CallFrame(2 * CallFrame.SLOT).begin().text("longer than the frame")
        }
    }

    @Test
    fun `a null pointer is Java's own error with the native library loaded`() {
        var caught = 0
        for (round in 0 until 100_000) {
            try {
                length(if (round % 1000 == 999) null else "abc")
            } catch (_: NullPointerException) {
                caught++
            }
        }
        assertEquals(100, caught)
    }

    private fun length(text: String?): Int = text!!.length

    private fun roundTrip(argument: CallFrame.() -> CallFrame): String {
        val make = runtime.function("ffi.Array")
        val array = frame.begin().argument().callForHandle(make)
        val item = runtime.function("ffi.ArrayGetItem")
        return frame.begin().handle(array).int(0).callForText(item).also {
            NativeBindings.release(array)
        }
    }

    private companion object {
        const val TEXT = 32
    }
}
