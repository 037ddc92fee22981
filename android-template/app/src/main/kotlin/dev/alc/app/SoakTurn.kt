package dev.alc.app

import dev.alc.engine.GenerationRequest
import dev.alc.engine.Prompt
import dev.alc.engine.ResponseFormat
import dev.alc.engine.SamplingOptions
import dev.alc.engine.StreamingPolicy

/**
 * One generation of a [Soak]: what is asked, and what its collector does with the answer.
 *
 * @property pauseMillis how long the collector dawdles over each event.
 * @property cutAfter tokens, or milliseconds for [SoakCut.CANCEL], until [cut] happens.
 */
internal class SoakTurn(
    val prompt: Prompt,
    val maxTokens: Int,
    val sampling: SamplingOptions,
    val stop: List<String>,
    val responseFormat: ResponseFormat,
    val streaming: StreamingPolicy,
    val pauseMillis: Long,
    val cut: SoakCut,
    val cutAfter: Int,
) {
    /** The request for this turn in [conversation]; streaming is the default's where it is [alone]. */
    fun request(conversation: String, alone: Boolean) = GenerationRequest(
        prompt = prompt,
        conversation = conversation,
        maxTokens = maxTokens,
        sampling = sampling,
        streaming = if (alone) StreamingPolicy.Slow() else streaming,
        stop = stop,
        responseFormat = responseFormat,
    )
}

/** How an answer is cut short, if it has not ended by itself before. */
internal enum class SoakCut {
    /** Not at all. */
    NONE,

    /** The engine is told to stop it. */
    STOP,

    /** The collector wants no more. */
    LEAVE,

    /** The collector's coroutine is cancelled, wherever it is. */
    CANCEL,
}

/**
 * What came of a turn.
 *
 * @property end why the answer ended, or the kind of its failure; null where it was not told, since
 *   the collector had gone.
 */
internal class SoakAnswer {
    val ids = ArrayList<Int>()
    val text = StringBuilder()
    var promptTokens = 0
    var end: String? = null

    /** Whether this is what [whole], the answer to the same turn alone, lets [turn] become. */
    fun agrees(whole: SoakAnswer, turn: SoakTurn): Boolean {
        val cut = turn.cut != SoakCut.NONE && (end == null || end == CANCELLED)
        if (!cut) return toString() == whole.toString()
        if (ids != whole.ids.take(ids.size)) return false
        // Half a character at a cut is shown as a replacement mark, and what might begin a stop is
        // held back no longer.
        val sure = text.trimEnd('\uFFFD')
        return (listOf("") + turn.stop).any { (whole.text.toString() + it).startsWith(sure) }
    }

    override fun toString() = "$end after $promptTokens: $ids '$text'"

    private companion object {
        const val CANCELLED = "cancelled"
    }
}
