package dev.alc.runtime

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File

/** Small cores never count, whatever the kernel says of cores. */
class CoresTest {
    private val capacities = mapOf(
        "Cortex-X1, A78, A55" to (listOf(250, 250, 250, 250, 830, 830, 830, 1024) to 4),
        "Cortex-A76, A55" to (listOf(430, 430, 430, 430, 430, 430, 1024, 1024) to 2),
        "Cortex-A53" to (listOf(1024, 1024, 1024, 1024) to 4),
        "Cortex-X4, A720, A520" to (listOf(300, 300, 850, 850, 850, 800, 800, 1024) to 6),
    )
    private val frequencies = mapOf(
        "2.84, 2.42 and 1.80 GHz" to (listOf(1804800, 1804800, 2419200, 2419200, 2841600) to 3),
        "2.2 and 1.8 GHz" to (listOf(1804800, 1804800, 2208000, 2208000) to 2),
        "all the same" to (listOf(2400000, 2400000) to 2),
    )

    @Test
    fun `cores with less than half of the capacity are small`() {
        for ((name, phone) in capacities) {
            val (values, expected) = phone
            assertEquals(name, expected, Cores(folder(values, "cpu_capacity"), 8).bigCount())
        }
    }

    @Test
    fun `without capacities slower cores are small`() {
        for ((name, phone) in frequencies) {
            val (values, expected) = phone
            val described = folder(values, "cpufreq/cpuinfo_max_freq")
            assertEquals(name, expected, Cores(described, 8).bigCount())
        }
    }

    @Test
    fun `big cores have their numbers`() {
        val capacities = listOf(250, 1024, 830, 250, 250, 250, 250, 250, 250, 250, 1024)
        assertEquals(listOf(1, 2, 10), Cores(folder(capacities, "cpu_capacity"), 11).big())
        assertEquals(listOf(0, 1), Cores(folder(listOf(1024, 1024), "cpu_capacity"), 2).big())
        assertNull(Cores(File("/no/such/folder"), 3).big())
    }

    @Test
    fun `capacities come before frequencies`() {
        val described = folder(listOf(1024, 1024, 300, 300), "cpu_capacity")
        listOf(1800, 1800, 2000, 2000).forEachIndexed { core, value ->
            write(described, core, "cpufreq/cpuinfo_max_freq", "$value\n")
        }
        assertEquals(2, Cores(described, 8).bigCount())
    }

    @Test
    fun `cores that are off or may not be used do not count`() {
        val described = folder(listOf(250, 250, 1024, 1024, 1024), "cpu_capacity")
        assertEquals(2, Cores(described, 2).bigCount())
        write(described, 4, "online", "0\n")
        write(described, 3, "online", "1\n")
        assertEquals(2, Cores(described, 8).bigCount())
    }

    @Test
    fun `where the kernel says nothing all cores are alike`() {
        assertEquals(3, Cores(File("/no/such/folder"), 3).bigCount())
        assertEquals(3, Cores(folder(emptyList(), ""), 3).bigCount())
        val some = folder(listOf(250, 1024), "cpu_capacity")
        File(some, "cpu2").mkdir()
        File(some, "cpufreq").mkdir()
        assertEquals(6, Cores(some, 6).bigCount())
        write(some, 2, "cpu_capacity", "many\n")
        assertEquals(6, Cores(some, 6).bigCount())
        assertEquals(1, Cores(folder(listOf(0, 0), "cpu_capacity"), 0).bigCount())
    }

    @Test
    fun `this machine has a big core`() {
        assertTrue(Cores().bigCount() in 1..Runtime.getRuntime().availableProcessors())
    }

    private fun folder(values: List<Int>, file: String): File {
        val folder = TestFiles.temporaryFolder()
        values.forEachIndexed { core, value -> write(folder, core, file, "$value\n") }
        return folder
    }

    private fun write(folder: File, core: Int, file: String, text: String) {
        File(folder, "cpu$core/$file").apply { parentFile.mkdirs() }.writeText(text)
    }
}
