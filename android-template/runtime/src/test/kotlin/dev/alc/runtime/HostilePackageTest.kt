package dev.alc.runtime

import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineException
import dev.alc.engine.LoadOptions
import dev.alc.engine.MarkedText
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.CRC32
import kotlin.random.Random

/**
 * Whatever stands in a package's documents, loading ends in a model that computes or in an
 * [EngineException], and a refused package leaves nothing behind.
 */
class HostilePackageTest {
    private lateinit var folder: File

    @Before
    fun copyPackage() {
        folder = TestFiles.altered()
    }

    @Test
    fun `any damage to the description is refused or harmless`() {
        survives(ModelFiles.DESCRIPTION) { bytes, random -> damagedText(bytes, random) }
    }

    @Test
    fun `any damage to the index of weights is refused or harmless`() {
        survives("tensor-cache.json") { bytes, random -> damagedText(bytes, random) }
    }

    @Test
    fun `any damage to the chat template is refused or harmless`() {
        survives("chat_template.alc.json") { bytes, random -> damagedText(bytes, random) }
    }

    @Test
    fun `any damage to the tokenizer is refused or harmless`() {
        survives("tokenizer.alc") { bytes, random ->
            damagedBytes(bytes, random).also { if (it.size >= 4) restoreChecksum(it) }
        }
    }

    /** Loads [ROUNDS] packages of which the file called [name] went through [damage]. */
    private fun survives(name: String, damage: (ByteArray, Random) -> ByteArray) {
        TestFiles.open(folder).close()
        val file = File(folder, name)
        val whole = file.readBytes()
        val description = File(folder, ModelFiles.DESCRIPTION).readText()
        val handles = TestFiles.heldHandles()
        val open = TestFiles.openFiles()
        var refused = 0
        for (seed in 0 until ROUNDS) {
            val bytes = damage(whole, Random(seed))
            file.delete()
            file.writeBytes(bytes)
            if (name != ModelFiles.DESCRIPTION) describe(name, bytes.size, description)
            try {
                load()
            } catch (_: EngineException) {
                refused++
            } catch (problem: Exception) {
                throw AssertionError("seed $seed: ${String(bytes)}", problem)
            }
        }
        assertTrue("only $refused of $ROUNDS were refused", refused > ROUNDS / 4)
        assertEquals(handles, TestFiles.heldHandles())
        assertEquals(open, TestFiles.openFiles())
        assertEquals(emptyList<String>(), TestFiles.mappedModelFiles())
    }

    /** Loads the package, and if that succeeds computes with it. */
    private fun load() = runBlocking {
        val loader = TVMModelLoader(TestFiles.runtime(), TestFiles.codeCache)
        loader.load(folder.path, LoadOptions(contextTokens = 64)).use { model ->
            val tokens = model.tokenizer.encode(MarkedText.plain("Hello there"))
            model.openSession().use { it.prefill(intArrayOf(1) + tokens) }
            model.tokenizer.decode(tokens)
            model.chatTemplate?.render(listOf(ChatMessage("user", "Hello")), true)
        }
    }

    /** Lets the description agree with the size of a changed file, so that its reader sees it. */
    private fun describe(name: String, size: Int, description: String) {
        val entry = Regex("(\"$name\": *\\{[^}]*\"size\": *)[0-9]+")
        assertTrue(entry.containsMatchIn(description))
        File(folder, ModelFiles.DESCRIPTION).writeText(entry.replace(description, "$1$size"))
    }

    private fun damagedText(bytes: ByteArray, random: Random): ByteArray {
        val text = String(bytes)
        if (random.nextInt(4) == 0) return damagedBytes(bytes, random)
        val value = VALUES.findAll(text).toList().random(random)
        return text.replaceRange(value.range, REPLACEMENTS.random(random)).toByteArray()
    }

    private fun damagedBytes(bytes: ByteArray, random: Random): ByteArray {
        val at = random.nextInt(bytes.size)
        val until = minOf(bytes.size, at + 1 + random.nextInt(16))
        return when (random.nextInt(4)) {
            0 -> bytes.copyOf(at)
            1 -> bytes.copyOfRange(0, at) + bytes.copyOfRange(until, bytes.size)
            2 -> bytes.copyOfRange(0, until) + bytes.copyOfRange(at, bytes.size)
            else -> bytes.copyOf().also { random.nextBytes(it, at, until) }
        }
    }

    private fun restoreChecksum(bytes: ByteArray) {
        val sum = CRC32().apply { update(bytes, 0, bytes.size - 4) }.value.toInt()
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putInt(bytes.size - 4, sum)
    }

    private companion object {
        const val ROUNDS = 75

        /** A JSON number or a quoted text, a name of a member included. */
        val VALUES = Regex("-?[0-9]+|\"[^\"]*\"|true|false|null")
        val REPLACEMENTS = listOf(
            "0", "-1", "1", "3", "64", "2147483647", "2147483648", "-9223372036854775808",
            "9223372036854775807", "1e30", "0.5", "true", "null", "\"\"", "\"../x\"", "\"\\u0000\"",
            "\"float32\"", "\"int8\"", "[]", "{}", "[1]", "{\"a\":[]}", "",
        )
    }
}
