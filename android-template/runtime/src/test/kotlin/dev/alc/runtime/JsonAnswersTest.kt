package dev.alc.runtime

import dev.alc.engine.JsonGrammar
import dev.alc.engine.LoadedModel
import dev.alc.engine.ModelSession
import dev.alc.engine.SamplingOptions
import dev.alc.engine.TokenConstraint
import dev.alc.engine.Tokenizer
import dev.alc.engine.TopPSampler
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.After
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer

/** What a compiled model says when it is held to JSON. */
class JsonAnswersTest {
    private lateinit var model: LoadedModel
    private lateinit var session: ModelSession
    private lateinit var prompt: IntArray

    @Before
    fun load() {
        model = TestFiles.open()
        session = model.openSession()
        prompt = model.tokenizer.encode("An answer: ")
        session.prefill(prompt)
    }

    @After
    fun close() {
        if (::model.isInitialized) model.close()
    }

    @Test
    fun `a thousand sampled answers are objects, or beginnings of objects`() {
        val grammar = JsonGrammar(model.tokenizer, model.info.eosTokenIds)
        var finished = 0
        for (seed in 0 until ANSWERS) {
            val answer = Answer(grammar.begin())
            sample(answer, seed, maxTokens = 1 + seed % LONGEST)
            if (answer.constraint.finished) finished++
            // What was cut short goes on to the end of its object, whatever its last token was.
            while (!answer.constraint.finished) {
                answer.add(endings.first { it in answer.constraint.allowed() })
            }
            val parsed = Json.parseToJsonElement(answer.text())
            assertTrue(answer.text(), parsed is JsonObject)
            assertStrict(parsed)
        }
        assertTrue("$finished finished", finished in ANSWERS / 20..ANSWERS - ANSWERS / 20)
    }

    private fun sample(answer: Answer, seed: Int, maxTokens: Int) {
        val sampler = TopPSampler(SamplingOptions(temperature = 1f, seed = seed.toLong()), model.info.vocabSize)
        session.trim(prompt.size - 1)
        var logits = session.decode(prompt.last())
        repeat(maxTokens) {
            val token = sampler.sample(logits, answer.constraint.allowed())
            answer.add(token)
            if (answer.constraint.finished) return
            logits = session.decode(token)
        }
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

    private inner class Answer(val constraint: TokenConstraint) {
        private val bytes = ByteArrayOutputStream()
        private var previous = Tokenizer.NO_TOKEN

        fun add(token: Int) {
            constraint.accept(token)
            bytes.write(model.tokenizer.tokenBytes(token, previous))
            previous = token
        }

        /** Fails where the bytes are no UTF-8. */
        fun text(): String = Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes.toByteArray())).toString()
    }

    /** One of these tokens is allowed everywhere, and the first that is leads to the end. */
    private val endings: List<Int> by lazy {
        val bytes = "\"}]:0{\\udcrealsn".toByteArray() + listOf(0x80, 0x90, 0xa0).map { it.toByte() }
        bytes.map { byte ->
            (0 until model.tokenizer.vocabSize).filterNot(model.tokenizer::isSpecial)
                .first { model.tokenizer.tokenBytes(it, it).contentEquals(byteArrayOf(byte)) }
        }
    }

    private companion object {
        const val ANSWERS = 1_000

        /** The most tokens of an answer. */
        const val LONGEST = 20
        val BARE = Regex("true|false|null|-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}
