package dev.alc.provider

import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineException
import dev.alc.engine.ResponseFormat
import dev.alc.runtime.MLCInferenceStrategy
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.file.Files

/**
 * A provider on a real package: the one that the system property `alc.package` or the environment's
 * `ALC_PACKAGE` names, with the library of `alc.runtime` or `ALC_RUNTIME`. Skipped without them.
 */
class ProviderOnPackageTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val library = setting("alc.runtime", "ALC_RUNTIME")
    private val model = setting("alc.package", "ALC_PACKAGE")
    private val greedy = GenerationOptions(temperature = 0f, maxTokens = 8)
    private lateinit var provider: LocalLLMProvider

    @Before
    fun makeProvider() {
        assumeTrue("no native library or no package was given", library != null && model != null)
        provider = LocalLLMProvider(MLCInferenceStrategy(temporary.newFolder("code"), library))
    }

    @After
    fun cleanUp() = runBlocking { if (library != null && model != null) provider.cleanup().getOrThrow() }

    @Test
    fun `a real model answers, and goes on from its cache`() = runBlocking {
        val info = provider.initialize(LLMConfig(model!!)).getOrThrow()
        assertEquals("alc", info.engine)
        assertTrue("$info", info.runtime.startsWith("tvm ") && info.backend.startsWith("cpu/"))
        assertTrue("$info", info.memoryBytes in 1..(2048L shl 20))
        assertEquals(LLMHealth.Healthy(info, busy = false), provider.checkHealth())

        val first = listOf(ChatMessage("user", "Hello"))
        val responses = provider.chat(first, greedy).toList()
        val complete = responses.last() as LLMResponse.Complete
        assertEquals(complete.text, responses.dropLast(1).joinToString("") { (it as LLMResponse.Streaming).text })
        assertEquals(complete.text, provider.answer("Hello", greedy).text)
        val second = first + ChatMessage("assistant", complete.text) + ChatMessage("user", "And now?")
        val next = provider.answer(second, greedy)
        assertTrue("${next.usage}", next.usage.cachedTokens >= complete.usage.promptTokens)
    }

    @Test
    fun `an answer in JSON begins as JSON`() = runBlocking {
        provider.initialize(LLMConfig(model!!)).getOrThrow()
        val options = greedy.copy(responseFormat = ResponseFormat.JSON, temperature = 1f, maxTokens = 24)
        val text = provider.answer("Hello", options).text.trimStart(' ', '\t', '\r', '\n')
        assertTrue(text, text.isEmpty() || text.startsWith("{"))
    }

    @Test
    fun `bad input is answered in words, and leaves the model as it was`() = runBlocking {
        provider.initialize(LLMConfig(model!!)).getOrThrow()
        val before = provider.answer("Hello", greedy).text
        assertEquals("invalid-request", provider.error("", greedy).kind)
        assertEquals("context-full", provider.error("word ".repeat(20_000), greedy).kind)
        assertEquals("invalid-request", provider.error("Hello", greedy.copy(temperature = Float.NaN)).kind)
        val unknown = greedy.copy(logitBias = mapOf(Int.MAX_VALUE to 1f))
        assertEquals("invalid-request", provider.error("Hello", unknown).kind)
        val half = provider.answer("\uD83D Hello", greedy)
        assertEquals(provider.answer("\uFFFD Hello", greedy).text, half.text)
        // As a control token it would be one token, not the several of its letters.
        val plain = provider.answer("Hello", greedy).usage.promptTokens
        assertTrue(provider.answer("Hello<|im_end|>", greedy).usage.promptTokens > plain + 1)
        assertEquals(before, provider.answer("Hello", greedy).text)
    }

    @Test
    fun `a folder that is no whole model is refused by kind`() = runBlocking {
        val refusals = listOf(
            "model-not-found" to temporary.root.resolve("nothing"),
            "model-not-found" to altered("no-tokenizer") { it.resolve("tokenizer.alc").delete() },
            "model-damaged" to altered("cut") { folder -> rewrite(folder, "params_shard_0.bin") { it.copyOf(9) } },
            "model-damaged" to altered("no-json") { folder -> rewrite(folder, "package.json") { it.copyOf(99) } },
            "model-incompatible" to altered("another's") { folder ->
                rewrite(folder, "package.json") { bytes ->
                    String(bytes).replace(Regex("\"prefill_chunk\": ?\\d+"), "\"prefill_chunk\": 3").toByteArray()
                }
            },
        )
        for ((kind, folder) in refusals) {
            val problem = provider.initialize(LLMConfig(folder.path)).exceptionOrNull() as EngineException?
            assertEquals("$folder: $problem", kind, problem?.kind)
            assertEquals(LLMHealth.NotLoaded, provider.checkHealth())
        }
        val tight = LLMConfig(model!!, maxMemoryMB = 1)
        assertEquals("memory-budget", (provider.initialize(tight).exceptionOrNull() as EngineException).kind)
        provider.initialize(LLMConfig(model)).getOrThrow()
        assertTrue(provider.answer("Hello", greedy).usage.promptTokens > 0)
    }

    /** The package, linked into a folder of its own, after [change]. */
    private fun altered(name: String, change: (File) -> Unit): File {
        val target = temporary.newFolder(name)
        val source = File(model!!)
        for (file in source.walkTopDown().filter { it.isFile }) {
            val link = target.resolve(file.relativeTo(source))
            link.parentFile.mkdirs()
            Files.createSymbolicLink(link.toPath(), file.toPath().toRealPath())
        }
        change(target)
        return target
    }

    /** Puts a changed copy in the place of a linked file. */
    private fun rewrite(folder: File, name: String, change: (ByteArray) -> ByteArray) {
        val file = folder.resolve(name)
        val bytes = file.readBytes()
        file.delete()
        file.writeBytes(change(bytes))
    }

    private fun setting(property: String, variable: String): String? =
        System.getProperty(property) ?: System.getenv(variable)
}
