package dev.alc.app

import dev.alc.engine.Availability
import dev.alc.engine.BackendException
import dev.alc.engine.CachePool
import dev.alc.engine.ChatMessage
import dev.alc.engine.ChatTemplate
import dev.alc.engine.InferenceStrategy
import dev.alc.engine.KvShape
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadedModel
import dev.alc.engine.MarkedText
import dev.alc.engine.ModelInfo
import dev.alc.engine.ModelLoader
import dev.alc.engine.ModelNotFoundException
import dev.alc.engine.ModelSession
import dev.alc.engine.Tokenizer
import java.nio.FloatBuffer

/**
 * A model that counts up from the last byte of its prompt until 'z'; `!` breaks it. Every so many
 * calls, counted over all its sessions, it [slips] and says something else.
 */
internal class EchoStrategy(
    private val missing: List<String> = emptyList(),
    private val slips: Int = Int.MAX_VALUE,
) : InferenceStrategy {
    override val name = "echo"
    private var calls = 0
    var open = 0
        private set

    override fun isAvailable(): Availability =
        if (missing.isEmpty()) Availability.Available("test") else Availability.Unavailable(missing)

    override fun loader() = object : ModelLoader {
        override suspend fun load(
            path: String,
            options: LoadOptions,
            onProgress: (LoadProgress) -> Unit,
        ): LoadedModel {
            if (path == "missing") throw ModelNotFoundException("$path is missing")
            open++
            return Model(options)
        }
    }

    private inner class Model(options: LoadOptions) : LoadedModel {
        override val info = ModelInfo(
            name = "echo", architecture = "test", quantization = "none", packageId = "0af1",
            runtime = "test 1", backend = options.cpuVariant?.let { "test/$it" } ?: "test", abi = "x86_64", threads = options.threads ?: 1,
            vocabSize = 257, contextWindow = options.contextTokens ?: 128, prefillChunk = 4,
            eosTokenIds = setOf(256), kv = KvShape(1, 1, 1, 2, 4), weightsBytes = 5,
        )
        override val tokenizer = Bytes
        override val chatTemplate = Lines
        override val cache = CachePool(info.contextWindow, 4, 1024)

        override fun openSession() = Session()

        override fun close() {
            open--
        }
    }

    private inner class Session : ModelSession {
        override var length = 0
            private set

        override fun prefill(tokens: IntArray): FloatBuffer = verify(tokens).let { rows ->
            rows.position((tokens.size - 1) * 257)
            rows.slice()
        }

        override fun decode(token: Int) = prefill(intArrayOf(token))

        override fun verify(tokens: IntArray): FloatBuffer {
            if ('!'.code in tokens) throw BackendException("there was a !")
            length += tokens.size
            if (++calls % slips == 0) tokens[tokens.size - 1] = '?'.code
            val rows = FloatBuffer.allocate(tokens.size * 257)
            tokens.forEachIndexed { row, token -> rows.put(row * 257 + if (token < 'z'.code) token + 1 else 256, 1f) }
            return rows
        }

        override fun trim(newLength: Int) {
            length = newLength
        }

        override fun fork(): ModelSession = throw UnsupportedOperationException()

        override fun reset() = trim(0)

        override fun close() = Unit
    }

    private object Lines : ChatTemplate {
        override fun render(messages: List<ChatMessage>, addGenerationPrompt: Boolean) =
            MarkedText.plain(messages.joinToString("") { if (it.role == "assistant") it.content else "\n" + it.content })
    }

    private object Bytes : Tokenizer {
        override val vocabSize = 257
        override val startTokens = IntArray(0)

        override fun encode(text: MarkedText) =
            text.text.toByteArray().map { it.toInt() and 0xff }.toIntArray()

        override fun tokenBytes(id: Int, previous: Int) = byteArrayOf(id.toByte())

        override fun isSpecial(id: Int) = id == 256

        override fun idOf(token: String): Int? = null

        override fun decode(ids: IntArray, skipSpecial: Boolean) = String(ids.map { it.toByte() }.toByteArray())
    }
}
