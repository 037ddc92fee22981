package dev.alc.engine

import java.util.zip.CRC32

/**
 * Cuts records into LMX1 lines, in which a reader of a log sees every loss.
 *
 * A line is `LMX1 <run> <seq> <i>/<n> <crc32> <chunk>`, ASCII, at most [MAX_LINE] bytes: the
 * record's number, the chunk's number and count from 1, the CRC-32 (zlib's, 8 hexadecimal digits)
 * of `<run> <seq> <i>/<n> <chunk>`, and a slice of the record as ASCII JSON.
 *
 * @param run 8 hexadecimal digits that the host gave.
 */
public class LmxEncoder(private val run: String) {
    init {
        require(RUN.matches(run)) { "a run is 8 hexadecimal digits, not '$run'" }
    }

    /** The lines of record number [seq], whose JSON text [json] is ASCII (see [ascii]). */
    public fun lines(seq: Int, json: String): List<String> {
        val chunks = json.chunked(MAX_LINE - HEADER_ROOM)
        return chunks.mapIndexed { index, chunk ->
            val head = "$run $seq ${index + 1}/${chunks.size}"
            "LMX1 $head ${checksum("$head $chunk")} $chunk"
        }
    }

    private fun checksum(text: String): String {
        val crc = CRC32()
        crc.update(text.toByteArray(Charsets.US_ASCII))
        return crc.value.toString(16).padStart(8, '0')
    }

    /** Constants and helpers of LMX1. */
    public companion object {
        /** The longest line in bytes; logcat keeps it whole on every Android. */
        public const val MAX_LINE: Int = 960

        // "LMX1 ", the run, and sequence, index, count and checksum at their widest.
        private const val HEADER_ROOM = 60
        private val RUN = Regex("[0-9a-f]{8}")

        /** [json] with everything outside of ASCII escaped; such characters stand in strings only. */
        public fun ascii(json: String): String {
            if (json.all { it.code in ' '.code..'~'.code }) return json
            return buildString(json.length + 16) {
                for (char in json) {
                    if (char.code in ' '.code..'~'.code) append(char) else append("\\u%04x".format(char.code))
                }
            }
        }
    }
}
