package dev.alc.app

import dev.alc.engine.ALCEngine
import dev.alc.engine.ChatMessage
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.ModelInfo
import dev.alc.engine.Prompt
import dev.alc.engine.ResponseFormat
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.takeWhile
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject
import java.util.concurrent.Executors

/**
 * Many generations with options by chance, several conversations at once, whose collectors dawdle,
 * stop and leave; each answer is compared with the same request run alone.
 *
 * It goes in rounds. A round holds one new conversation for each lane, all at the same time on
 * threads of their own, and then the same conversations again, one after the other, with a prompt
 * collector that takes everything. The numbers behind two answers are only the same where the model
 * computed the same tokens in the same calls, so
 *
 * - a conversation that is compared has the same history: an answer that is cut short, at a token
 *   that depends on the moment, is its conversation's last, and is compared as far as it came;
 * - nothing is evicted: what prompts and answers may have is so little that all lanes fit the cache.
 *
 * Between rounds every conversation is forgotten and garbage collected, and what the process then
 * holds is sampled: it must be the same after every round.
 */
internal class Soak(
    private val engine: ALCEngine,
    private val model: ModelInfo,
    private val asked: DoorSoak,
    private val pssKb: () -> Long,
    private val heldHandles: () -> Long,
    private val progress: (text: String) -> Unit,
) {
    private val counts = sortedMapOf<String, Int>()
    private val samples = ArrayList<LongArray>()
    private val examples = ArrayList<JsonObject>()
    private var differing = 0
    private var generations = 0
    private var tokens = 0L

    init {
        if (asked.generations < 1) throw InvalidRequestException("a soak of ${asked.generations} generations")
        if (asked.conversations !in 1..MAX_LANES) {
            throw InvalidRequestException("a soak holds 1 to $MAX_LANES conversations, not ${asked.conversations}")
        }
        if (asked.maxTokens < 1) throw InvalidRequestException("answers of ${asked.maxTokens} tokens")
    }

    /** Soaks, and says what came of it. Fails only where every generation would. */
    suspend fun run(): JsonObject {
        val dice = dice()
        Executors.newScheduledThreadPool(asked.conversations).asCoroutineDispatcher().use { lanes ->
            while (generations < asked.generations) {
                round(dice, lanes)
                samples += sample()
                progress("soak: $generations of ${asked.generations} generations")
            }
        }
        val evictions = engine.cacheCounters().evictions
        return buildJsonObject {
            put("generations", generations)
            put("tokens", tokens)
            putJsonObject("counts") { for ((name, count) in counts) put(name, count) }
            put("evictions", evictions)
            put("differing", differing)
            put("examples", JsonArray(examples))
            put("samples", JsonArray(samples.map { JsonObject(SAMPLED.zip(it.map(::JsonPrimitive)).toMap()) }))
        }
    }

    private suspend fun dice(): SoakDice {
        val pool = engine.cacheCounters().budgetBytes / model.kv.bytesPerToken / model.kv.pageTokens
        val lane = minOf(pool / asked.conversations * model.kv.pageTokens, model.contextWindow.toLong()).toInt()
        val turn = lane / SoakDice.MAX_TURNS
        if (turn < LEAST_TOKENS) {
            throw InvalidRequestException("the cache has too little room for ${asked.conversations} conversations")
        }
        return SoakDice(asked.seed, engine.tokenizer, turn, asked.maxTokens, templateTokens())
    }

    /** What the chat template adds to a message, or null where there is none. */
    private suspend fun templateTokens(): Int? {
        val request = GenerationRequest(Prompt.Turn(listOf(ChatMessage("user", "a"))), maxTokens = 1)
        val started = engine.generate(request).toList().firstOrNull() as? GenerationEvent.Started
        return started?.promptTokenIds?.size
    }

    private suspend fun round(dice: SoakDice, lanes: CoroutineDispatcher) {
        val first = generations
        val round = ArrayList<List<SoakTurn>>()
        while (round.size < asked.conversations && generations < asked.generations) {
            round += dice.conversation(asked.generations - generations)
            generations += round.last().size
        }
        val together = withContext(lanes) {
            round.mapIndexed { lane, turns -> async { converse("lane$lane", turns, alone = false) } }.awaitAll()
        }
        val alone = round.map { converse("alone", it, alone = true) }
        var number = first
        for (lane in round.indices) {
            for ((at, turn) in round[lane].withIndex()) {
                count(turn, together[lane][at])
                compare(number++, turn, together[lane][at], alone[lane][at])
            }
        }
    }

    private suspend fun converse(name: String, turns: List<SoakTurn>, alone: Boolean): List<SoakAnswer> {
        val answers = turns.map { if (alone) whole(name, it) else cut(name, it) }
        engine.forget(name)
        return answers
    }

    private suspend fun whole(conversation: String, turn: SoakTurn): SoakAnswer {
        val answer = SoakAnswer()
        engine.generate(turn.request(conversation, alone = true)).collect { take(it, answer) }
        return answer
    }

    private suspend fun cut(conversation: String, turn: SoakTurn): SoakAnswer = coroutineScope {
        val answer = SoakAnswer()
        val collecting = launch {
            engine.generate(turn.request(conversation, alone = false)).takeWhile { event ->
                take(event, answer)
                if (turn.pauseMillis > 0) delay(turn.pauseMillis)
                val due = answer.ids.size >= turn.cutAfter
                if (due && turn.cut == SoakCut.STOP) engine.stop(conversation)
                !(due && turn.cut == SoakCut.LEAVE)
            }.collect()
        }
        if (turn.cut == SoakCut.CANCEL) {
            delay(turn.cutAfter.toLong())
            collecting.cancel()
        }
        collecting.join()
        answer
    }

    private fun take(event: GenerationEvent, answer: SoakAnswer) {
        when (event) {
            is GenerationEvent.Started -> answer.promptTokens = event.promptTokenIds.size
            is GenerationEvent.Prefilled -> Unit
            is GenerationEvent.Tokens -> {
                answer.ids += event.ids.asList()
                answer.text.append(event.text)
            }
            is GenerationEvent.Finished -> answer.end = event.reason.name.lowercase()
            is GenerationEvent.Failed -> answer.end = event.error.kind
        }
    }

    private fun count(turn: SoakTurn, answer: SoakAnswer) {
        tokens += answer.ids.size
        val facts = listOfNotNull(
            "end_${answer.end ?: "gone"}",
            "cut_${turn.cut.name.lowercase()}".takeIf { turn.cut != SoakCut.NONE },
            "json".takeIf { turn.responseFormat == ResponseFormat.JSON },
            "stops".takeIf { turn.stop.isNotEmpty() },
            "slow_collector".takeIf { turn.pauseMillis > 0 },
            "chat".takeIf { turn.prompt is Prompt.Turn },
        )
        for (fact in facts) counts[fact] = (counts[fact] ?: 0) + 1
    }

    private fun compare(number: Int, turn: SoakTurn, together: SoakAnswer, alone: SoakAnswer) {
        if (together.agrees(alone, turn)) return
        differing++
        if (examples.size == MAX_EXAMPLES) return
        examples += buildJsonObject {
            put("generation", number)
            put("cut", turn.cut.name.lowercase())
            put("stop", JsonArray(turn.stop.map(::JsonPrimitive)))
            put("together", together.toString())
            put("alone", alone.toString())
        }
    }

    /** Numbers only, so that what is kept of a sample hardly shows in the next. */
    private suspend fun sample(): LongArray {
        val kvBytes = engine.cacheCounters().usedBytes
        val javaKb = heldJavaKb()
        val census = SoakCensus.take()
        return longArrayOf(
            generations.toLong(),
            kvBytes,
            pssKb(),
            javaKb,
            heldHandles(),
            census.threads.size.toLong(),
            census.files.size.toLong(),
        )
    }

    /** The least of several readings: what another thread allocates right behind a collection is not held. */
    private fun heldJavaKb(): Long {
        val runtime = Runtime.getRuntime()
        return (1..COLLECTIONS).minOf {
            runtime.gc()
            (runtime.totalMemory() - runtime.freeMemory()) / BYTES_PER_KB
        }
    }

    private companion object {
        const val COLLECTIONS = 3
        const val MAX_LANES = 4
        const val LEAST_TOKENS = 6
        const val MAX_EXAMPLES = 5
        const val BYTES_PER_KB = 1024
        val SAMPLED = listOf("generations", "kv_bytes_used", "pss_kb", "java_kb", "handles", "threads", "files")
    }
}
