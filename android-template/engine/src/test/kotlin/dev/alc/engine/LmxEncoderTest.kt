package dev.alc.engine

import io.kotest.property.Arb
import io.kotest.property.arbitrary.Codepoint
import io.kotest.property.arbitrary.int
import io.kotest.property.arbitrary.map
import io.kotest.property.arbitrary.nonNegativeInt
import io.kotest.property.arbitrary.string
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.zip.CRC32

/** Whatever a record says, its lines fit the log, and are whole or known not to be. */
class LmxEncoderTest {
    private val frame = Regex("""LMX1 (([0-9a-f]{8}) (\d+) (\d+)/(\d+)) ([0-9a-f]{8}) ([ -~]*)""")

    @Test
    fun `any record is cut into checked lines that join to it`() = runBlocking {
        val run = Arb.int().map { "%08x".format(it) }
        checkAll(100, run, Arb.nonNegativeInt(), Arb.string(1..2000, ANY)) { name, seq, text ->
            val json = LmxEncoder.ascii(text)
            val lines = LmxEncoder(name).lines(seq, json)
            val joined = StringBuilder()
            for ((index, line) in lines.withIndex()) {
                assertTrue("${line.length}", line.toByteArray().size <= LmxEncoder.MAX_LINE)
                val (head, run, number, at, count, sum, chunk) = frame.matchEntire(line)!!.destructured
                assertEquals(listOf(name, "$seq"), listOf(run, number))
                assertEquals(listOf("${index + 1}", "${lines.size}"), listOf(at, count))
                val crc = CRC32().apply { update("$head $chunk".toByteArray()) }
                assertEquals(crc.value, sum.toLong(16))
                joined.append(chunk)
            }
            assertEquals(json, joined.toString())
        }
        Unit
    }

    @Test
    fun `escapes stand for what they were`() = runBlocking {
        checkAll(100, Arb.string(0..200, ANY)) { text ->
            val escape = Regex("""\\u([0-9a-f]{4})""")
            val plain = text.replace("\\", "")
            val ascii = LmxEncoder.ascii(plain)
            assertTrue(ascii.all { it in ' '..'~' })
            assertEquals(plain, escape.replace(ascii) { it.groupValues[1].toInt(16).toChar().toString() })
        }
        Unit
    }

    private companion object {
        /** All of Unicode, and halves of surrogate pairs. */
        val ANY = Arb.int(0..0x10FFFF).map(::Codepoint)
    }
}
