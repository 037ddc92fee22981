package dev.alc.runtime

import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelNotFoundException
import java.io.File
import java.io.IOException
import java.security.MessageDigest

/**
 * The files of one model package, wherever they lie.
 *
 * @property id the package's key, or an empty text for a plain folder.
 */
internal class ModelFiles private constructor(
    val description: PackageDescription,
    val id: String,
    private val files: Map<String, Entry>,
) {
    /** A file of the package: where it is, and the size and hash that it should have. */
    class Entry(val name: String, val file: File, val size: Long, val sha256: String) {
        /** Refuses bytes whose hash is [actual] and not the file's. */
        fun checkHash(actual: String) {
            if (actual == sha256) return
            throw ModelDamagedException(
                "$file ($name) is damaged: its sha256 is $actual instead of $sha256",
            )
        }
    }

    /** All files, in the order of their names. */
    val all: List<Entry>
        get() = files.values.sortedBy { it.name }

    /** The file called [name] in the package. */
    operator fun get(name: String): Entry =
        files[name] ?: throw ModelDamagedException("the package does not list $name")

    /** Whether the package has a file called [name]. */
    operator fun contains(name: String): Boolean = name in files

    /** Refuses a file that is missing or has another size than it should. */
    fun checkSize(entry: Entry) {
        if (!entry.file.isFile) {
            throw ModelNotFoundException("${entry.file} (${entry.name}) is missing")
        }
        val actual = entry.file.length()
        if (actual != entry.size) {
            throw ModelDamagedException(
                "${entry.file} (${entry.name}) has $actual bytes instead of ${entry.size}",
            )
        }
    }

    /** Refuses a file whose bytes are not those of the package; [onBytes] is told each block. */
    inline fun checkHash(entry: Entry, onBytes: (Int) -> Unit) {
        val digest = sha256()
        val block = ByteArray(BLOCK)
        reading(entry.file) {
            entry.file.inputStream().use { input ->
                while (true) {
                    val count = input.read(block)
                    if (count < 0) break
                    digest.update(block, 0, count)
                    onBytes(count)
                }
            }
        }
        entry.checkHash(digest.digest().hex())
    }

    companion object {
        const val DESCRIPTION: String = "package.json"
        private const val BLOCK = 1 shl 20
        private const val PACKAGE_SCHEMA = "harness.package/2"
        private const val INSTALLED_SCHEMA = "harness.installed-model/1"

        /**
         * Finds the package at [path]: a folder with `package.json`, or a deployment's stamp.
         *
         * @throws ModelNotFoundException if there is nothing, or no description.
         */
        fun open(path: String): ModelFiles {
            val place = File(path)
            return when {
                place.isDirectory -> openFolder(place)
                place.isFile -> openStamp(place)
                else -> throw ModelNotFoundException("there is no model at $path")
            }
        }

        private fun openFolder(folder: File): ModelFiles {
            val description = readDescription(File(folder, DESCRIPTION))
            val entries = description.files.map { (name, facts) ->
                Entry(name, inside(folder, name), facts.size, facts.sha256)
            }
            return ModelFiles(description, "", entries.associateBy { it.name })
        }

        private fun openStamp(stamp: File): ModelFiles {
            val installed = readDocument(stamp, InstalledModel.serializer(), INSTALLED_SCHEMA)
            val entries = installed.files.map { (name, facts) ->
                val place = facts.path ?: throw ModelDamagedException("$stamp: $name has no path")
                Entry(name, File(place), facts.size, facts.sha256)
            }.associateBy { it.name }
            val own = entries[DESCRIPTION]
                ?: throw ModelDamagedException("$stamp does not list $DESCRIPTION")
            val description = readDescription(own.file)
            for ((name, facts) in description.files) {
                val known = entries[name]
                    ?: throw ModelDamagedException("$stamp does not list $name")
                if (known.sha256 != facts.sha256 || known.size != facts.size) {
                    throw ModelDamagedException("$stamp and $DESCRIPTION disagree about $name")
                }
            }
            return ModelFiles(description, installed.`package`, entries)
        }

        private fun readDescription(file: File): PackageDescription {
            if (!file.isFile) throw ModelNotFoundException("$file is missing")
            return readDocument(file, PackageDescription.serializer(), PACKAGE_SCHEMA)
        }

        /** A name in a package must not lead out of its folder. */
        private fun inside(folder: File, name: String): File {
            if (name.startsWith("/") || name.split('/').any { it == ".." }) {
                throw ModelDamagedException("$folder: a package must not name $name")
            }
            return File(folder, name)
        }
    }
}

internal fun sha256(): MessageDigest = MessageDigest.getInstance("SHA-256")

internal fun ByteArray.hex(): String = joinToString("") { "%02x".format(it) }

/** Runs [body], which reads [file], and says which one it was where that fails. */
internal inline fun <T> reading(file: File, body: () -> T): T = try {
    body()
} catch (problem: IOException) {
    throw ModelDamagedException("$file cannot be read: ${problem.message}", problem)
}
