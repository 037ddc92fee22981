package dev.alc.app

import dev.alc.engine.ChatMessage
import dev.alc.engine.Prompt
import dev.alc.engine.ResponseFormat
import dev.alc.engine.SamplingOptions
import dev.alc.engine.StreamingPolicy
import dev.alc.engine.Tokenizer
import kotlin.random.Random

/**
 * Throws the conversations of a soak; equal seeds give equal ones.
 *
 * @param turnTokens what prompt and answer of one turn may have together.
 * @param templateTokens what the chat template adds to a turn, or null where there is no template.
 */
internal class SoakDice(
    seed: Long,
    private val tokenizer: Tokenizer,
    private val turnTokens: Int,
    private val maxTokens: Int,
    private val templateTokens: Int?,
) {
    private val random = Random(seed)

    /** The turns of one conversation, at most [most]. Only the last may be cut short. */
    fun conversation(most: Int): List<SoakTurn> {
        val turns = random.nextInt(1, minOf(most, MAX_TURNS) + 1)
        val chat = templateTokens != null && templateTokens < turnTokens / 2 && random.nextBoolean()
        return List(turns) { turn(chat, last = it == turns - 1) }
    }

    private fun turn(chat: Boolean, last: Boolean): SoakTurn {
        val answer = random.nextInt(1, minOf(maxTokens, turnTokens / 3) + 1)
        val cuts = if (last && random.nextBoolean()) SoakCut.entries else listOf(SoakCut.NONE)
        return SoakTurn(
            prompt = prompt(chat, turnTokens - answer - if (chat) templateTokens!! else 0),
            maxTokens = answer,
            sampling = sampling(),
            stop = if (oneIn(3)) List(random.nextInt(1, 5)) { STOPS.random(random) } else emptyList(),
            responseFormat = if (oneIn(4)) ResponseFormat.JSON else ResponseFormat.TEXT,
            streaming = streaming(),
            pauseMillis = if (oneIn(4)) random.nextLong(1, 5) else 0,
            cut = cuts.random(random),
            cutAfter = random.nextInt(answer + 1),
        )
    }

    private fun prompt(chat: Boolean, room: Int): Prompt {
        if (!chat && random.nextBoolean()) {
            val count = random.nextInt(1, minOf(room, MAX_PROMPT) + 1)
            return Prompt.Tokens(IntArray(count) { random.nextInt(tokenizer.vocabSize) })
        }
        var words = List(random.nextInt(1, MAX_PROMPT)) { WORDS.random(random) }
        val fits = { tokenizer.startTokens.size + tokenizer.encode(words.joinToString(" ")).size <= room }
        while (words.size > 1 && !fits()) words = words.dropLast(1)
        val text = words.joinToString(" ")
        return if (chat) Prompt.Turn(listOf(ChatMessage("user", text))) else Prompt.Text(text)
    }

    private fun sampling() = SamplingOptions(
        temperature = if (oneIn(3)) 0f else between(0.3f, 1.5f),
        topP = if (oneIn(2)) 1f else between(0.5f, 1f),
        topK = if (oneIn(2)) 0 else random.nextInt(1, 50),
        minP = if (oneIn(2)) 0f else between(0f, 0.3f),
        typicalP = if (oneIn(2)) 1f else between(0.5f, 1f),
        repetitionPenalty = if (oneIn(2)) 1f else between(0.8f, 1.3f),
        frequencyPenalty = if (oneIn(2)) 0f else between(-1f, 1f),
        presencePenalty = if (oneIn(2)) 0f else between(-1f, 1f),
        logitBias = if (oneIn(2)) emptyMap() else List(random.nextInt(1, 8)) { bias() }.toMap(),
        seed = random.nextLong(),
    )

    private fun bias(): Pair<Int, Float> =
        random.nextInt(tokenizer.vocabSize) to if (oneIn(3)) Float.NEGATIVE_INFINITY else between(-3f, 3f)

    private fun streaming(): StreamingPolicy = when (random.nextInt(3)) {
        0 -> StreamingPolicy.Slow(random.nextInt(1, 4))
        1 -> StreamingPolicy.Coalesce(random.nextLong(4), random.nextInt(1, 9))
        else -> StreamingPolicy.Slow()
    }

    private fun oneIn(chances: Int) = random.nextInt(chances) == 0

    private fun between(least: Float, most: Float) = least + random.nextFloat() * (most - least)

    companion object {
        /** The most turns of a conversation. */
        const val MAX_TURNS = 3
        private const val MAX_PROMPT = 24
        private val WORDS = listOf("the", "Once", "2 + 2", "naïve", "東京", "👩‍👩‍👧", "{", "\n", "<|im_end|>", "")
        private val STOPS = ('a'..'z').map { it.toString() } + listOf(" t", "\n", "é", "the")
    }
}
