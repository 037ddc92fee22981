package dev.alc.runtime

import java.io.File
import java.io.RandomAccessFile

/** What Linux tells in /proc/self about this process's memory. */
internal object ResidentMemory {
    private const val PAGE = 4096L
    private const val ENTRY = 8
    private val MAPPING = Regex("([0-9a-f]+)-([0-9a-f]+) (?:\\S+ +){4}(.*)")

    /** A range of addresses; [anonymous] if it shows no file. */
    class Mapping(val addresses: LongRange, val anonymous: Boolean)

    fun mappings(): List<Mapping> = File("/proc/self/maps").readLines()
        // The kernel's own page has an address beyond the positive numbers.
        .filterNot { it.endsWith("[vsyscall]") }
        .map { line ->
            val (start, end, name) = MAPPING.matchEntire(line)!!.destructured
            Mapping(start.toLong(HEXADECIMAL) until end.toLong(HEXADECIMAL), name.isEmpty())
        }

    /** Addresses that are anonymous memory now and were not mapped at all [before]. */
    fun fresh(before: List<Mapping>): List<LongRange> = mappings().filter { it.anonymous }.flatMap { now ->
        val parts = mutableListOf<LongRange>()
        var start = now.addresses.first
        for (old in before.map { it.addresses }) {
            if (old.last < start || old.first > now.addresses.last) continue
            if (old.first > start) parts += start until old.first
            start = old.last + 1
        }
        parts + listOf(start..now.addresses.last)
    }.filterNot { it.isEmpty() }

    /** Bytes of [ranges] that are in memory. */
    fun bytes(ranges: List<LongRange>): Long = RandomAccessFile("/proc/self/pagemap", "r").use { map ->
        ranges.sumOf { range ->
            val entries = ByteArray(((range.last + 1 - range.first) / PAGE).toInt() * ENTRY)
            map.seek(range.first / PAGE * ENTRY)
            map.readFully(entries)
            // The highest bit of an entry says that the page is present.
            (ENTRY - 1 until entries.size step ENTRY).count { entries[it] < 0 } * PAGE
        }
    }

    private const val HEXADECIMAL = 16
}
