package dev.alc.app

import java.io.Closeable
import java.io.File
import java.io.FileOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.security.MessageDigest

/** A file of little-endian float32, hashed as it is written. */
internal class FloatFile(file: File) : Closeable {
    private val out = FileOutputStream(file)
    private val digest = MessageDigest.getInstance("SHA-256")
    private val bytes = ByteBuffer.allocate(CHUNK_FLOATS * Float.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN)

    /** Appends all [floats] from their position on. */
    fun write(floats: FloatBuffer) {
        while (floats.hasRemaining()) {
            bytes.clear()
            val count = minOf(floats.remaining(), CHUNK_FLOATS)
            repeat(count) { bytes.putFloat(floats.get()) }
            out.write(bytes.array(), 0, bytes.position())
            digest.update(bytes.array(), 0, bytes.position())
        }
    }

    /** Puts everything on the disk and returns the file's SHA-256. */
    fun finish(): String {
        out.fd.sync()
        return digest.digest().joinToString("") { "%02x".format(it) }
    }

    override fun close(): Unit = out.close()

    private companion object {
        const val CHUNK_FLOATS = 16384
    }
}
