package dev.alc.app

import dev.alc.engine.InvalidRequestException
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import java.io.File
import java.io.IOException

/**
 * What the host asks for: `harness.request/1`. Fields that the app does not know are an error,
 * so that nothing that the host asked for is passed over in silence.
 */
@Serializable
internal class DoorRequest(
    val schema: String,
    val protocol: Int,
    val run: String,
    val verb: String,
    val model: String? = null,
    val threads: Int? = null,
    val context: Int? = null,
    @SerialName("cpu_variant") val cpuVariant: String? = null,
    val texts: List<String> = emptyList(),
    val verify: Boolean = false,
    val steps: List<DoorStep> = emptyList(),
    val tokens: List<Int> = emptyList(),
    val chunks: List<Int>? = null,
    val chat: ChatSettings? = null,
    val soak: DoorSoak? = null,
) {
    companion object {
        const val SCHEMA = "harness.request/1"
        const val PROTOCOL = 1
        private val RUN = Regex("[0-9a-f]{8}")

        // What is no number gets as far as the options that refuse it, and minus infinity is a bias.
        private val json = Json { allowSpecialFloatingPointValues = true }

        /** @throws InvalidRequestException if [file] is not a request for this app. */
        fun read(file: File): DoorRequest {
            val request = try {
                json.decodeFromString<DoorRequest>(file.readText())
            } catch (problem: SerializationException) {
                throw InvalidRequestException("$file is not a request: ${problem.message}", problem)
            } catch (problem: IOException) {
                throw InvalidRequestException("$file cannot be read: ${problem.message}", problem)
            }
            if (request.schema != SCHEMA || request.protocol != PROTOCOL) {
                throw InvalidRequestException("$file is ${request.schema}; this app reads $SCHEMA")
            }
            if (!RUN.matches(request.run)) {
                throw InvalidRequestException("a run is 8 hexadecimal digits, not '${request.run}'")
            }
            return request
        }
    }
}

/** One generation; steps of the same [conversation] continue it. */
@Serializable
internal class DoorStep(
    val id: String,
    val prompt: String,
    val conversation: String = "main",
    val system: String? = null,
    val template: Boolean = true,
    @SerialName("max_tokens") val maxTokens: Int = 64,
    val temperature: Float = 0f,
    @SerialName("top_p") val topP: Float = 1f,
    @SerialName("top_k") val topK: Int = 0,
    @SerialName("min_p") val minP: Float = 0f,
    @SerialName("typical_p") val typicalP: Float = 1f,
    @SerialName("repetition_penalty") val repetitionPenalty: Float = 1f,
    @SerialName("frequency_penalty") val frequencyPenalty: Float = 0f,
    @SerialName("presence_penalty") val presencePenalty: Float = 0f,
    @SerialName("logit_bias") val logitBias: Map<Int, Float> = emptyMap(),
    val seed: Long = 0,
    val stop: List<String> = emptyList(),
    @SerialName("response_format") val responseFormat: String = "text",
    @SerialName("context_policy") val contextPolicy: String = "refuse",
    @SerialName("stop_after") val stopAfter: Int? = null,
    val keep: Boolean = true,
)

/**
 * What a soak is made of: how many [generations], in how many [conversations] at once, each answer
 * of at most [maxTokens]. Equal seeds ask for the same.
 */
@Serializable
internal class DoorSoak(
    val generations: Int,
    val seed: Long = 0,
    val conversations: Int = 3,
    @SerialName("max_tokens") val maxTokens: Int = 16,
)
