package dev.alc.runtime

import dev.alc.engine.ALCEngine
import dev.alc.engine.EngineState
import dev.alc.engine.FinishReason
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.JsonGrammar
import dev.alc.engine.Prompt
import dev.alc.engine.ResponseFormat
import dev.alc.engine.SamplingOptions
import dev.alc.engine.Tokenizer
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

/** What a compiled model says when it is held to JSON. */
class JsonAnswersTest {
    private lateinit var engine: ALCEngine
    private lateinit var grammar: JsonGrammar

    @Before
    fun load() {
        val path = TestFiles.packageFolder().path
        engine = ALCEngine(MLCInferenceStrategy(TestFiles.codeCache, TestFiles.libraryPath()))
        runBlocking { engine.load(path) }
        val info = (engine.state.value as EngineState.Ready).info
        grammar = JsonGrammar(engine.tokenizer, info.eosTokenIds)
    }

    @After
    fun close() {
        if (::engine.isInitialized) runBlocking { engine.close() }
    }

    @Test
    fun `a thousand sampled answers are objects, or beginnings of objects`() {
        var whole = 0
        for (seed in 0 until ANSWERS) {
            val events = answer(seed)
            val finished = events.last() as GenerationEvent.Finished
            val tokens = events.filterIsInstance<GenerationEvent.Tokens>()
            var text = tokens.joinToString("") { it.text }
            if (finished.reason == FinishReason.LENGTH) {
                text = ended(tokens.flatMap { it.ids.toList() })
            } else {
                assertEquals(FinishReason.STOP, finished.reason)
                whole++
            }
            val parsed = Json.parseToJsonElement(text)
            assertTrue(text, parsed is JsonObject)
            assertStrict(parsed)
        }
        assertTrue("$whole are whole", whole in ANSWERS / 20..ANSWERS - ANSWERS / 20)
    }

    private fun answer(seed: Int): List<GenerationEvent> = runBlocking {
        val request = GenerationRequest(
            Prompt.Text("Say: "),
            maxTokens = 1 + seed % LONGEST,
            sampling = SamplingOptions(temperature = 1f, seed = seed.toLong()),
            responseFormat = ResponseFormat.JSON,
        )
        engine.generate(request).toList()
    }

    /** The text of [ids], which was cut short, and of what ends its object. */
    private fun ended(ids: List<Int>): String {
        val constraint = grammar.begin()
        ids.forEach(constraint::accept)
        val all = ids.toMutableList()
        while (!constraint.finished) {
            val allowed = constraint.allowed()
            all += endings.first { it in allowed }.also(constraint::accept)
        }
        return engine.tokenizer.decode(all.toIntArray())
    }

    /** One of these tokens is allowed everywhere, and the first that is leads to the end. */
    private val endings: List<Int> by lazy {
        val bytes = "\"}]:0{\\udcrealsn".toByteArray() + listOf(0x80, 0x90, 0xa0).map { it.toByte() }
        val tokenizer: Tokenizer = engine.tokenizer
        val ordinary = (0 until tokenizer.vocabSize).filterNot(tokenizer::isSpecial)
        bytes.map { byte -> ordinary.first { tokenizer.tokenBytes(it, it).contentEquals(byteArrayOf(byte)) } }
    }

    /** The parser takes any bare word for a value. */
    private fun assertStrict(element: JsonElement) {
        when (element) {
            is JsonObject -> element.values.forEach(::assertStrict)
            is JsonArray -> element.forEach(::assertStrict)
            is JsonPrimitive -> if (!element.isString) {
                assertTrue(element.content, BARE.matches(element.content))
            }
        }
    }

    private companion object {
        const val ANSWERS = 1_000

        /** The most tokens of an answer. */
        const val LONGEST = 20
        val BARE = Regex("true|false|null|-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}
