package dev.alc.engine

import java.io.Closeable
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.security.MessageDigest
import java.util.concurrent.Callable
import java.util.concurrent.Executors

/**
 * Timing records on their way out: each goes to a file and, as LMX1 lines, to a log.
 *
 * Writing happens on a thread of its own, in the order of [append]; whoever appends does not
 * wait. The file is the truth: it has every record even where the log loses lines, and it is
 * on the disk when [close] returns.
 *
 * @param run 8 hexadecimal digits that the host gave.
 * @param file where the records go, one JSON text a line; must not exist.
 * @param sink takes one line of the log, such as Android's `Log.i`.
 */
public class MetricsLog(
    run: String,
    private val file: File,
    private val sink: (line: String) -> Unit,
) : Closeable {
    private val encoder = LmxEncoder(run)
    private val digest = MessageDigest.getInstance("SHA-256")
    private val out = FileOutputStream(file)
    private var records = 0
    private var failure: IOException? = null
    private var closed = false
    private val writer = Executors.newSingleThreadExecutor { work ->
        Thread(work, "alc-metrics").apply { isDaemon = true }
    }

    /** How many records there are before the end record, and the SHA-256 of their lines. */
    public data class Totals(public val records: Int, public val sha256: String)

    /** Queues a record: a JSON object as text, on one line. */
    public fun append(json: String) {
        writer.execute { write(LmxEncoder.ascii(json), times = 1) }
    }

    /**
     * Writes what is queued and the end record, and returns what that record says.
     *
     * @throws StorageException if a record could not be written to the file.
     */
    public fun finish(): Totals = writer.submit(
        Callable {
            val sha256 = digest.digest().joinToString("") { "%02x".format(it) }
            val totals = Totals(records, sha256)
            // Three times: the end tells what is missing, so it must not be what is lost.
            write("""{"t":"end","records":$records,"sha256":"$sha256"}""", times = 3)
            keep { out.fd.sync() }
            totals
        },
    ).get().also { _ ->
        failure?.let { throw StorageException("$file cannot be written: ${it.message}", it) }
    }

    /** Ends the thread and closes the file. */
    override fun close() {
        if (closed) return
        closed = true
        writer.submit { keep { out.close() } }.get()
        writer.shutdown()
    }

    private fun write(json: String, times: Int) {
        val line = "$json\n".toByteArray(Charsets.US_ASCII)
        keep { out.write(line) }
        digest.update(line)
        val lines = encoder.lines(records, json)
        repeat(times) { lines.forEach(sink) }
        records++
    }

    /** On a full disk the log still gets its lines, and [finish] says what happened. */
    private inline fun keep(write: () -> Unit) {
        try {
            write()
        } catch (problem: IOException) {
            if (failure == null) failure = problem
        }
    }
}
