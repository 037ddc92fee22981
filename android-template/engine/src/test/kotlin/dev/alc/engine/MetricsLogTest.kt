package dev.alc.engine

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.security.MessageDigest
import java.util.Collections
import java.util.concurrent.CountDownLatch
import java.util.zip.CRC32
import kotlin.random.Random

class MetricsLogTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val line = Regex("LMX1 ([0-9a-f]{8}) (\\d+) (\\d+)/(\\d+) ([0-9a-f]{8}) (.*)")

    /** The records in [lines] by number, each line checked. */
    private fun decode(lines: List<String>): Map<Int, String> {
        val records = sortedMapOf<Int, String>()
        for (text in lines) {
            assertTrue(text.length <= 960 && text.all { it.code in 32..126 })
            val (run, seq, index, count, sum, chunk) = line.matchEntire(text)!!.destructured
            val crc = CRC32().apply { update("$run $seq $index/$count $chunk".toByteArray()) }
            assertEquals("%08x".format(crc.value), sum)
            assertTrue(index.toInt() in 1..count.toInt())
            if (index == "1") records[seq.toInt()] = ""
            records[seq.toInt()] += chunk
        }
        return records
    }

    private fun sha256(bytes: ByteArray) =
        MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }

    @Test
    fun `records of any length come back whole from their lines`() {
        val random = Random(1)
        val encoder = LmxEncoder("0123abcd")
        for (length in listOf(1, 899, 900, 901, 1800, 1801, 5000)) {
            val json = String(CharArray(length) { Char(random.nextInt(32, 127)) })
            val lines = encoder.lines(Int.MAX_VALUE, json)
            assertEquals(json, decode(lines).getValue(Int.MAX_VALUE))
            assertEquals((length + 899) / 900, lines.size)
        }
    }

    @Test
    fun `a checksum with leading zeros keeps its eight digits`() {
        val encoder = LmxEncoder("00000000")
        repeat(2000) { decode(encoder.lines(it, "{\"n\":$it}")) }
    }

    @Test
    fun `characters outside of ASCII are escaped as JSON wants`() {
        assertEquals("{\"a\":\"\\u00e9\\ud83d\\ude00\\u007f\"}", LmxEncoder.ascii("{\"a\":\"é😀\u007f\"}"))
        assertEquals("plain", LmxEncoder.ascii("plain"))
    }

    @Test
    fun `a run must be eight hexadecimal digits`() {
        for (run in listOf("", "0123abc", "0123ABCD", "0123abcd ", "0123abcde")) {
            assertThrows(IllegalArgumentException::class.java) { LmxEncoder(run) }
        }
    }

    @Test
    fun `file and log say the same, in order, and the end can be checked`() {
        val file = File(folder.root, "metrics.jsonl")
        val lines = Collections.synchronizedList(mutableListOf<String>())
        val written = List(200) { """{"t":"x","n":$it,"text":"${"é".repeat(it * 3)}"}""" }
        val totals = MetricsLog("0123abcd", file, lines::add).use { log ->
            written.forEach(log::append)
            log.finish()
        }
        val content = file.readLines()
        assertEquals(written.map(LmxEncoder::ascii), content.dropLast(1))
        val records = decode(lines.dropLast(2))
        assertEquals((0..200).toList(), records.keys.toList())
        assertEquals(content, records.values.toList())
        assertEquals(1, lines.takeLast(3).distinct().size)
        val before = content.dropLast(1).joinToString("") { "$it\n" }.toByteArray()
        assertEquals(MetricsLog.Totals(200, sha256(before)), totals)
        assertEquals("""{"t":"end","records":200,"sha256":"${totals.sha256}"}""", content.last())
    }

    @Test(timeout = 60_000)
    fun `appending does not wait for a slow log`() {
        val stuck = CountDownLatch(1)
        val lines = Collections.synchronizedList(mutableListOf<String>())
        val log = MetricsLog("0123abcd", File(folder.root, "m.jsonl")) { line ->
            stuck.await()
            lines += line
        }
        repeat(50) { log.append("{}") }
        assertEquals(0, lines.size)
        stuck.countDown()
        assertEquals(50, log.finish().records)
        assertEquals(53, lines.size)
        log.close()
        log.close()
    }

    @Test
    fun `a disk that is full is an error in the end and never a crash`() {
        val full = File("/dev/full")
        assumeTrue("this system has no /dev/full", full.exists())
        val lines = Collections.synchronizedList(mutableListOf<String>())
        val log = MetricsLog("0123abcd", full, lines::add)
        repeat(3) { log.append("{\"n\":$it}") }
        val failure = assertThrows(StorageException::class.java) { log.finish() }
        assertTrue("/dev/full" in failure.message!!)
        log.close()
        assertEquals(4, decode(lines).size)
    }
}
