package dev.alc.runtime

import java.io.File
import java.io.IOException

/**
 * The processor's cores, as Linux describes them in [folder].
 *
 * @param usable how many cores this process may use.
 */
internal class Cores(
    private val folder: File = File("/sys/devices/system/cpu"),
    private val usable: Int = Runtime.getRuntime().availableProcessors(),
) {
    /** How many cores are online and not small, at least 1 and at most those that may be used. */
    fun bigCount(): Int = (big()?.size ?: usable).coerceIn(1, maxOf(1, usable))

    /**
     * The numbers of the cores that are online and not small; null where the kernel does not tell.
     *
     * A core is big with half the capacity of the largest (`cpu_capacity`, the kernel's own measure)
     * or, where the kernel gives none, with 85 % of the highest frequency, since small cores are
     * clocked lower.
     */
    fun big(): List<Int>? {
        val cores = folder.listFiles { file -> NAME.matches(file.name) }.orEmpty()
            .filter { number(File(it, "online")) != 0L } // one that cannot be switched off has no such file
        val big = near(cores, "cpu_capacity", 0.5) ?: near(cores, "cpufreq/cpuinfo_max_freq", 0.85)
        return big?.map { it.name.removePrefix("cpu").toInt() }?.sorted()
    }

    /** The cores that have this [share] of what the best has in [file]; null unless all have it. */
    private fun near(cores: List<File>, file: String, share: Double): List<File>? {
        val values = cores.map { number(File(it, file)) ?: return null }
        val best = values.maxOrNull()?.takeIf { it > 0 } ?: return null
        return cores.filterIndexed { index, _ -> values[index] >= share * best }
    }

    private fun number(file: File): Long? = try {
        file.readText().trim().toLongOrNull()
    } catch (_: IOException) {
        null
    } catch (_: SecurityException) {
        null
    }

    private companion object {
        val NAME = Regex("cpu[0-9]{1,4}")
    }
}
