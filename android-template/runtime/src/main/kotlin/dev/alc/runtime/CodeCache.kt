package dev.alc.runtime

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.StorageException
import java.io.File
import java.io.IOException

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
        val bytes = reading(library.file) { library.file.readBytes() }
        if (!HASH.matches(library.sha256)) {
            throw ModelDamagedException("${library.name}: ${library.sha256} is no sha256")
        }
        val target = File(folder, "${library.sha256.take(NAME_DIGITS)}-$LIBRARY")
        // Comparing takes a fraction of the time that hashing takes before it is compiled.
        if (holds(target, bytes)) return target
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

    private fun holds(file: File, bytes: ByteArray): Boolean = try {
        file.length() == bytes.size.toLong() && file.readBytes().contentEquals(bytes)
    } catch (_: IOException) {
        false
    }

    private companion object {
        const val NAME_DIGITS = 16
        const val LIBRARY = "libmodel.so"
        val HASH = Regex("[0-9a-f]{64}")
    }
}
