package dev.alc.provider

import dev.alc.engine.Availability
import dev.alc.engine.CachePool
import dev.alc.engine.ChatMessage
import dev.alc.engine.ChatTemplate
import dev.alc.engine.InferenceStrategy
import dev.alc.engine.KvShape
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadedModel
import dev.alc.engine.MarkedText
import dev.alc.engine.MemoryBudgetException
import dev.alc.engine.ModelInfo
import dev.alc.engine.ModelLoader
import dev.alc.engine.ModelSession
import dev.alc.engine.Tokenizer
import java.nio.FloatBuffer

/**
 * A second strategy beside the real one: a model whose answer continues the alphabet from the
 * prompt's last letter and ends after z; in capitals it goes round for ever. Tokens are bytes; 0
 * ends an answer.
 */
internal class AlphabetStrategy(private val missing: List<String> = emptyList()) : InferenceStrategy {
    override val name = "alphabet"

    @Volatile
    var openSessions = 0
        private set

    @Volatile
    var openModels = 0
        private set

    /** Steps of the model so far. */
    var steps = 0
        private set

    /** Called first of all by the loader. */
    var onLoad: suspend (onProgress: (LoadProgress) -> Unit) -> Unit = {}

    /** Called when a model is closed. */
    var onClose: () -> Unit = {}

    /** Called before each step of the model, with how many tokens the step computes. */
    var onStep: (tokens: Int) -> Unit = {}

    override fun isAvailable(): Availability =
        if (missing.isEmpty()) Availability.Available("test") else Availability.Unavailable(missing)

    override fun loader(): ModelLoader = object : ModelLoader {
        override suspend fun load(
            path: String,
            options: LoadOptions,
            onProgress: (LoadProgress) -> Unit,
        ): LoadedModel {
            onLoad(onProgress)
            return Model(options)
        }
    }

    private inner class Model(options: LoadOptions) : LoadedModel {
        override val info = ModelInfo(
            name = "letters",
            architecture = "test",
            quantization = "none",
            packageId = "",
            runtime = "test 1",
            backend = "test cpu",
            abi = "x86_64",
            threads = options.threads ?: 1,
            vocabSize = VOCABULARY,
            contextWindow = options.contextTokens ?: CONTEXT,
            prefillChunk = 64,
            eosTokenIds = setOf(0),
            kv = KvShape(layers = 1, kvHeads = 1, headDim = 256, bytesPerElement = 2, pageTokens = 16),
            weightsBytes = 3L shl 20,
            workBytes = 1L shl 20,
        )
        init {
            val needed = info.weightsBytes + info.workBytes + info.contextWindow * info.kv.bytesPerToken
            if (needed > options.maxMemoryBytes) throw MemoryBudgetException("letters need $needed bytes")
            openModels++
        }

        override val tokenizer = Bytes
        override val chatTemplate = JoinedMessages
        override val cache = CachePool(info.contextWindow, options.maxSessions, 1L shl 20)

        override fun openSession(): ModelSession = Session(ArrayList())

        override fun close() {
            openModels--
            onClose()
        }
    }

    private inner class Session(private val tokens: MutableList<Int>) : ModelSession {
        init {
            openSessions++
        }

        override val length get() = tokens.size

        override fun prefill(tokens: IntArray): FloatBuffer {
            steps++
            onStep(tokens.size)
            this.tokens += tokens.asList()
            return logits(tokens.last())
        }

        override fun decode(token: Int): FloatBuffer = prefill(intArrayOf(token))

        override fun verify(tokens: IntArray): FloatBuffer = throw UnsupportedOperationException()

        override fun trim(newLength: Int) {
            while (tokens.size > newLength) tokens.removeAt(tokens.lastIndex)
        }

        override fun fork(): ModelSession = Session(ArrayList(tokens))

        override fun reset() = trim(0)

        override fun close() {
            openSessions--
        }

        private fun logits(last: Int): FloatBuffer = FloatBuffer.allocate(VOCABULARY).apply {
            val next = when (last) {
                in 'a'.code until 'z'.code, in 'A'.code until 'Z'.code -> last + 1
                'Z'.code -> 'A'.code
                else -> 0
            }
            put(next, 10f)
        }
    }

    private object JoinedMessages : ChatTemplate {
        override fun render(messages: List<ChatMessage>, addGenerationPrompt: Boolean) =
            MarkedText.plain(messages.joinToString("") { it.content })
    }

    private object Bytes : Tokenizer {
        override val vocabSize = VOCABULARY
        override val startTokens = IntArray(0)

        override fun encode(text: MarkedText): IntArray {
            val bytes = text.text.toByteArray()
            return IntArray(bytes.size) { bytes[it].toInt() and 0xFF }
        }

        override fun tokenBytes(id: Int, previous: Int) = byteArrayOf(id.toByte())

        override fun isSpecial(id: Int) = id == 0

        override fun idOf(token: String): Int? = token.singleOrNull()?.code

        override fun decode(ids: IntArray, skipSpecial: Boolean) =
            String(ByteArray(ids.size) { ids[it].toByte() })
    }

    private companion object {
        const val VOCABULARY = 256
        const val CONTEXT = 4096
    }
}
