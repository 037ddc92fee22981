package dev.alc.app

import dev.alc.engine.InvalidRequestException
import dev.alc.engine.SamplingOptions
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import java.io.ByteArrayOutputStream
import java.io.InputStream

/** How a chat is held: the part of a request that only the verb `chat` has. */
@Serializable
internal class ChatSettings(
    val schema: String,
    val socket: String,
    val system: String? = null,
    @SerialName("max_tokens") val maxTokens: Int = 512,
    val temperature: Float = 0f,
    @SerialName("top_p") val topP: Float = 1f,
    @SerialName("top_k") val topK: Int = 0,
    val seed: Long = 0,
) {
    /** @throws InvalidRequestException if this is another protocol's, or a value is out of its range. */
    fun check() {
        if (schema != SCHEMA) throw InvalidRequestException("the chat is $schema; this app speaks $SCHEMA")
        if (socket.isEmpty()) throw InvalidRequestException("the chat names no socket")
        if (maxTokens < 1) throw InvalidRequestException("max_tokens must be positive, not $maxTokens")
        sampling(0)
    }

    /** The options of a turn, counted from 0. Each has a seed of its own, so that none is an echo. */
    fun sampling(turn: Int) = SamplingOptions(
        temperature = temperature,
        topP = topP,
        topK = topK,
        seed = seed + turn,
    )

    companion object {
        const val SCHEMA = "harness.chat/1"
    }
}

/** What a host says in a chat: a JSON object a line, its kind in `t`. */
@Serializable
internal sealed interface HostMessage {
    /** The user's next words; the answer to them follows. */
    @Serializable
    @SerialName("turn")
    class Turn(val text: String) : HostMessage

    /** Ends the answer that is being given; what came of it stays. */
    @Serializable
    @SerialName("stop")
    class Stop : HostMessage

    /** Forgets the conversation. */
    @Serializable
    @SerialName("reset")
    class Reset : HostMessage

    /** Ends the chat. */
    @Serializable
    @SerialName("bye")
    class Bye : HostMessage
}

/** Reads a host's messages from a stream. Lines are bounded, so that a host cannot fill the memory. */
internal class HostMessages(private val input: InputStream, private val maxBytes: Int = MAX_BYTES) {
    /**
     * The next message, or null at the end of the stream.
     *
     * @throws InvalidRequestException if a line is too long or no message; the next call reads on.
     */
    fun next(): HostMessage? {
        val line = line() ?: return null
        try {
            return JSON.decodeFromString<HostMessage>(line)
        } catch (problem: SerializationException) {
            throw InvalidRequestException("not a message of ${ChatSettings.SCHEMA}: ${problem.message}", problem)
        }
    }

    private fun line(): String? {
        val bytes = ByteArrayOutputStream()
        var length = 0
        while (true) {
            val next = input.read()
            if (next < 0) return null
            if (next == '\n'.code) break
            if (length++ < maxBytes) bytes.write(next)
        }
        if (length > maxBytes) throw InvalidRequestException("a line of $length bytes; at most $maxBytes are taken")
        return bytes.toString("UTF-8")
    }

    private companion object {
        const val MAX_BYTES = 4 shl 20
        val JSON = Json { classDiscriminator = "t" }
    }
}
