package dev.alc.engine

import kotlinx.coroutines.delay
import java.nio.FloatBuffer

/**
 * A strict stand-in for a model: it says the texts of [answers] one token (one byte) at a time,
 * checks every call as native code would, and counts what is open.
 *
 * After [answers] are used up it repeats the last one. Token 256 ends an answer, 257 is
 * `<user>`, 258 is `</user>`.
 */
class ScriptedModel(
    vararg val answers: String,
    window: Int = 256,
    chunk: Int = 8,
    poolTokens: Int = window,
    maxSessions: Int = 4,
) : LoadedModel {
    /** Called before each call of the model with its name; may throw, block, or count. */
    var before: (call: String) -> Unit = {}

    /** Every batch of tokens that was computed, in order. */
    val computed = mutableListOf<List<Int>>()
    var openSessions = 0
        private set
    var closed = false
        private set
    var next = 0

    override val info = ModelInfo(
        name = "scripted", architecture = "script", quantization = "none", packageId = "",
        runtime = "test", backend = "test", abi = "test", threads = 1, vocabSize = VOCABULARY,
        contextWindow = window, prefillChunk = chunk, eosTokenIds = setOf(END),
        kv = KvShape(layers = 1, kvHeads = 1, headDim = 4, bytesPerElement = 2, pageTokens = 4),
        weightsBytes = 1,
    )
    override val tokenizer = ByteTokenizer
    override val chatTemplate = BracketTemplate
    override val cache = CachePool(poolTokens, maxSessions, poolTokens * info.kv.bytesPerToken)

    override fun openSession(): ModelSession {
        check(!closed)
        before("open")
        return Session()
    }

    override fun close() {
        closed = true
        before("close model")
    }

    private inner class Session(origin: Session? = null) : ModelSession {
        private val tokens: MutableList<Int> = origin?.tokens.orEmpty().toMutableList()
        private var open = true
        private var script = ByteArray(0)
        private var spoken = 0

        init {
            if (openSessions == cache.maxSessions) throw BackendException("too many sessions")
            openSessions++
        }

        override val length get() = tokens.size

        override fun prefill(tokens: IntArray): FloatBuffer {
            compute("prefill", tokens)
            script = answers[minOf(next, answers.lastIndex)].toByteArray()
            spoken = 0
            return logits()
        }

        override fun decode(token: Int): FloatBuffer {
            compute("decode", intArrayOf(token))
            check(token == (script[spoken].toInt() and 0xff)) { "decoded another token than was given" }
            spoken++
            return logits()
        }

        override fun verify(tokens: IntArray): FloatBuffer {
            compute("verify", tokens)
            val rows = FloatBuffer.allocate(tokens.size * VOCABULARY)
            tokens.forEachIndexed { row, token -> rows.put(row * VOCABULARY + token, 1f) }
            return rows
        }

        private fun compute(call: String, added: IntArray) {
            check(open && !closed)
            require(added.size in 1..info.prefillChunk)
            before(call)
            tokens += added.toList()
            check(tokens.size <= info.contextWindow) { "the context window is overrun" }
            computed += added.toList()
        }

        private fun logits(): FloatBuffer {
            val result = FloatBuffer.allocate(VOCABULARY)
            val token = if (spoken < script.size) script[spoken].toInt() and 0xff else END
            result.put(token, 9f)
            return result
        }

        override fun trim(newLength: Int) {
            check(open && !closed)
            require(newLength in 0..tokens.size)
            before("trim")
            while (tokens.size > newLength) tokens.removeLast()
        }

        override fun fork(): ModelSession {
            check(open && !closed)
            before("fork")
            return Session(this)
        }

        override fun reset() = trim(0)

        override fun close() {
            if (!open) return
            check(!closed)
            openSessions--
            open = false
            before("close")
        }
    }

    companion object {
        const val END = 256
        const val USER = 257
        const val USER_END = 258
        const val VOCABULARY = 259
    }
}

/** One token for each byte, and three control tokens. */
object ByteTokenizer : Tokenizer {
    private val specials = mapOf("<end>" to 256, "<user>" to 257, "</user>" to 258)

    override val vocabSize = ScriptedModel.VOCABULARY
    override val startTokens = IntArray(0)

    override fun encode(text: MarkedText): IntArray {
        val ids = mutableListOf<Int>()
        var at = 0
        while (at < text.text.length) {
            val special = specials.entries.firstOrNull { (name, _) ->
                text.text.startsWith(name, at) &&
                    text.markup.any { at in it && at + name.length - 1 in it }
            }
            if (special != null) {
                ids += special.value
                at += special.key.length
            } else {
                val end = text.text.offsetByCodePoints(at, 1)
                text.text.substring(at, end).toByteArray().forEach { ids += it.toInt() and 0xff }
                at = end
            }
        }
        return ids.toIntArray()
    }

    override fun tokenBytes(id: Int, previous: Int): ByteArray {
        require(id in 0 until vocabSize)
        return if (id < 256) byteArrayOf(id.toByte()) else specials.entries.first { it.value == id }.key.toByteArray()
    }

    override fun isSpecial(id: Int) = id >= 256

    override fun idOf(token: String): Int? = specials[token]

    override fun decode(ids: IntArray, skipSpecial: Boolean): String =
        String(ids.filter { it < 256 }.map { it.toByte() }.toByteArray())
}

/** Puts a user's text between `<user>` and `</user>`, an answer before `<end>`. */
object BracketTemplate : ChatTemplate {
    override fun render(messages: List<ChatMessage>, addGenerationPrompt: Boolean): MarkedText {
        val text = StringBuilder()
        val markup = mutableListOf<IntRange>()
        fun mark(piece: String) {
            val last = markup.lastOrNull()
            val range = text.length until text.length + piece.length
            if (last != null && last.last + 1 == range.first) {
                markup[markup.lastIndex] = last.first..range.last
            } else {
                markup += range
            }
            text.append(piece)
        }
        for (message in messages) {
            if (message.role == "user") mark("<user>")
            text.append(message.content)
            mark(if (message.role == "user") "</user>" else "<end>")
        }
        return MarkedText(text.toString(), markup)
    }
}

/** A strategy that hands out [model] after [loadMillis] of virtual time. */
class ScriptedStrategy(
    private val model: LoadedModel,
    private val availability: Availability = Availability.Available("test"),
    private val loadMillis: Long = 0,
    private val failure: Throwable? = null,
) : InferenceStrategy {
    override val name = "scripted"

    override fun isAvailable() = availability

    override fun loader() = object : ModelLoader {
        override suspend fun load(
            path: String,
            options: LoadOptions,
            onProgress: (LoadProgress) -> Unit,
        ): LoadedModel {
            onProgress(LoadProgress(LoadStage.CHECK, 1, 2))
            delay(loadMillis)
            failure?.let { throw it }
            return model
        }
    }
}
