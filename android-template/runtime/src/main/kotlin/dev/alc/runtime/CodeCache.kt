package dev.alc.runtime

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.StorageException
import java.io.DataInputStream
import java.io.File
import java.io.IOException
import java.io.InputStream

/**
 * A folder of the app from which code may be executed, with copies of models' libraries.
 *
 * A copy is named by its hash, is never written in place and is never writable, so that processes
 * and threads may place the same library at once, and a library that runs keeps its bytes.
 */
internal class CodeCache(private val folder: File) {
    /**
     * The copy of [library], which is byte for byte what the package has: one that was altered or
     * cut off is replaced, and nothing is copied that has another hash than the package says.
     *
     * @throws ModelDamagedException if the package's own file cannot be read or has another hash.
     * @throws StorageException if the copy cannot be written.
     */
    fun place(library: ModelFiles.Entry): File {
        if (!HASH.matches(library.sha256)) {
            throw ModelDamagedException("${library.name}: ${library.sha256} is no sha256")
        }
        val target = File(folder, "${library.sha256.take(NAME_DIGITS)}-$LIBRARY")
        // Comparing takes a fraction of the time that hashing takes before it is compiled.
        if (same(library.file, target)) return target
        val bytes = reading(library.file) { library.file.readBytes() }
        library.checkHash(sha256().digest(bytes).hex())
        try {
            write(target, bytes)
        } catch (problem: IOException) {
            throw StorageException(
                "cannot copy ${library.name} to $folder: ${problem.message}",
                problem,
            )
        }
        return target
    }

    private fun write(target: File, bytes: ByteArray) {
        folder.mkdirs()
        val fresh = File.createTempFile("libmodel", ".tmp", folder)
        try {
            fresh.writeBytes(bytes)
            fresh.setReadOnly()
            if (!fresh.renameTo(target)) throw IOException("cannot rename to $target")
        } finally {
            fresh.delete()
        }
    }

    /** Whether both are there and have the same bytes; a block at a time, for which the heap need not grow. */
    private fun same(one: File, other: File): Boolean = try {
        one.length() == other.length() &&
            one.inputStream().use { a -> other.inputStream().use { b -> sameNext(one.length(), a, b) } }
    } catch (_: IOException) {
        false
    }

    private fun sameNext(count: Long, one: InputStream, other: InputStream): Boolean {
        val (a, b) = List(2) { ByteArray(BLOCK) }
        for (start in 0 until count step BLOCK.toLong()) {
            val next = minOf(count - start, BLOCK.toLong()).toInt()
            DataInputStream(one).readFully(a, 0, next)
            DataInputStream(other).readFully(b, 0, next)
            // What a shorter last block leaves of the one before is the same in both.
            if (!a.contentEquals(b)) return false
        }
        return true
    }

    private companion object {
        const val NAME_DIGITS = 16
        const val BLOCK = 1 shl 16
        const val LIBRARY = "libmodel.so"
        val HASH = Regex("[0-9a-f]{64}")
    }
}
