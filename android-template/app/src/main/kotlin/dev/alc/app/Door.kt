package dev.alc.app

import dev.alc.engine.ALCEngine
import dev.alc.engine.Availability
import dev.alc.engine.ChatMessage
import dev.alc.engine.EngineException
import dev.alc.engine.GenerationEvent
import dev.alc.engine.GenerationRequest
import dev.alc.engine.InferenceStrategy
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LoadOptions
import dev.alc.engine.MetricsLog
import dev.alc.engine.ModelInfo
import dev.alc.engine.Prompt
import dev.alc.engine.SamplingOptions
import dev.alc.engine.StorageException
import dev.alc.engine.StrategyUnavailableException
import dev.alc.engine.StreamingPolicy
import kotlinx.coroutines.delay
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject
import java.io.File
import java.io.IOException

/**
 * The verbs that the host may ask for: info, load, generate, logits, soak and chat.
 *
 * It runs on any JVM; Android gives it a strategy, a folder and a log.
 *
 * @param application the app's id and [version], for the result.
 * @param pssKb the proportional set size of this process in KiB; slow, so never called while
 *   something is timed.
 * @param heldHandles native objects that this process holds now.
 * @param sink takes one line of the log.
 * @param progress says to the host what is being done.
 * @param listen opens the socket on which a chat's host comes.
 */
internal class Door(
    private val strategy: InferenceStrategy,
    private val application: String,
    private val version: String,
    private val pssKb: () -> Long,
    private val heldHandles: () -> Long,
    private val sink: (line: String) -> Unit,
    private val progress: (text: String) -> Unit,
    private val nanoTime: () -> Long = System::nanoTime,
    private val wallMillis: () -> Long = System::currentTimeMillis,
    private val pid: Int = 0,
    private val listen: (socket: String) -> ChatListener = { throw InvalidRequestException("nobody can connect here") },
) {
    /**
     * Does what [request] asks and leaves `result.json`, written last and at once, and
     * `metrics.jsonl` in [folder], which it creates. A failure is a result too.
     */
    suspend fun serve(request: DoorRequest, folder: File): Result {
        folder.mkdirs()
        val metrics = File(folder, "metrics.jsonl")
        val call = Call(request, folder, MetricsLog(request.run, metrics, sink))
        val error = call.log.use { call.run() }
        call.end()
        val result = File(folder, "result.json")
        val whole = File(folder, "result.json.tmp")
        whole.writeText(call.document(error).toString())
        check(whole.renameTo(result)) { "$result cannot be written" }
        return Result(result, error)
    }

    /** Where the result is, and what failed if something did. */
    class Result(val file: File, val error: EngineException?)

    private inner class Call(val request: DoorRequest, val folder: File, val log: MetricsLog) {
        private val engine = ALCEngine(strategy, nanoTime = nanoTime)
        private val content = LinkedHashMap<String, JsonObject>()
        private val texts = ArrayList<JsonObject>()
        private val steps = ArrayList<JsonObject>()
        private val beginNanos = nanoTime()
        private var model: ModelInfo? = null
        private var pssPeakKb = 0L
        private var totals: MetricsLog.Totals? = null
        private val before = SoakCensus.take()

        suspend fun run(): EngineException? {
            val error = try {
                when (request.verb) {
                    "info" -> begin()
                    "load" -> load().also { tokenize() }
                    "generate" -> load().also { generate() }
                    "logits" -> load().also { logits() }
                    "soak" -> load().also { soak() }
                    "chat" -> chat()
                    else -> throw InvalidRequestException("there is no verb '${request.verb}'")
                }
                null
            } catch (failure: EngineException) {
                failure
            } catch (problem: IOException) {
                StorageException("$folder cannot be written: ${problem.message}", problem)
            }
            if (error != null) {
                log.append(
                    buildJsonObject {
                        put("t", "error")
                        put("message", error.message)
                    }.toString(),
                )
            }
            if (model != null) content["memory"] = memory()
            engine.close()
            totals = log.finish()
            return error
        }

        private fun begin() {
            log.append(
                buildJsonObject {
                    put("t", "begin")
                    put("proto", DoorRequest.PROTOCOL)
                    put("run", request.run)
                    put("mono_ns", beginNanos)
                    put("wall_ns", wallMillis() * NANOS_PER_MILLI)
                    put("file", File(folder, "metrics.jsonl").path)
                    put("pid", pid)
                    put("engine", strategy.name)
                    put("backend", backend())
                    put("threads", model?.threads ?: request.threads)
                    put("model", model?.name)
                    put("quantization", model?.quantization)
                    put("package", model?.packageId)
                }.toString(),
            )
        }

        private fun backend(): String = model?.backend ?: when (val here = strategy.isAvailable()) {
            is Availability.Available -> here.backend
            is Availability.Unavailable -> throw StrategyUnavailableException(here.missing.joinToString("; "))
        }

        private suspend fun load() {
            val path = request.model ?: throw InvalidRequestException("the request names no model")
            val options = try {
                LoadOptions(
                    threads = request.threads,
                    contextTokens = request.context,
                    verifyHashes = request.verify,
                    cpuVariant = request.cpuVariant,
                )
            } catch (problem: IllegalArgumentException) {
                throw InvalidRequestException(problem.message ?: "wrong options", problem)
            }
            progress("loading $path")
            val start = nanoTime()
            val info = engine.load(path, options)
            val end = nanoTime()
            model = info
            begin()
            log.append(
                buildJsonObject {
                    put("t", "load")
                    put("start_ns", start)
                    put("end_ns", end)
                    put("weights_bytes", info.weightsBytes)
                }.toString(),
            )
            content["load"] = buildJsonObject {
                put("ns", end - start)
                put("weights_bytes", info.weightsBytes)
                put("kv_bytes", engine.cacheCounters().budgetBytes)
            }
            sampleMemory()
        }

        private fun tokenize() {
            for (text in request.texts) {
                val ids = engine.tokenizer.encode(text)
                texts += buildJsonObject {
                    put("text", text)
                    put("token_ids", JsonArray(ids.map { JsonPrimitive(it) }))
                    put("decoded", engine.tokenizer.decode(ids))
                }
            }
        }

        private suspend fun generate() {
            if (request.steps.isEmpty()) throw InvalidRequestException("the request has no steps")
            for (step in request.steps) {
                progress("generating ${step.id}")
                steps += answer(step)
                if (!step.keep) engine.forget(step.conversation)
                sampleMemory()
            }
        }

        private suspend fun answer(step: DoorStep): JsonObject {
            val recorder = StepRecorder(step, log, nanoTime)
            var failure: EngineException? = null
            engine.generate(request(step)).collect { event ->
                when (event) {
                    is GenerationEvent.Started -> recorder.started(event)
                    is GenerationEvent.Prefilled -> recorder.prefilled(event)
                    is GenerationEvent.Tokens -> {
                        recorder.tokens(event)
                        if (step.stopAfter != null && recorder.tokens >= step.stopAfter) {
                            engine.stop(step.conversation)
                        }
                    }
                    is GenerationEvent.Finished -> recorder.finished(event)
                    is GenerationEvent.Failed -> failure = event.error
                }
            }
            failure?.let { throw it }
            return recorder.result()
        }

        private fun request(step: DoorStep) = GenerationRequest(
            prompt = if (step.template) Prompt.Turn(messages(step)) else Prompt.Text(step.prompt),
            conversation = step.conversation,
            maxTokens = step.maxTokens,
            sampling = SamplingOptions(
                temperature = step.temperature,
                topP = step.topP,
                topK = step.topK,
                minP = step.minP,
                typicalP = step.typicalP,
                repetitionPenalty = step.repetitionPenalty,
                frequencyPenalty = step.frequencyPenalty,
                presencePenalty = step.presencePenalty,
                logitBias = step.logitBias,
                seed = step.seed,
            ),
            // A stop after so many tokens is only exact if the model does not run ahead.
            streaming = StreamingPolicy.Slow(if (step.stopAfter == null) TOKENS_AHEAD else 1),
            stop = step.stop,
            responseFormat = named("response_format", step.responseFormat),
            contextPolicy = named("context_policy", step.contextPolicy),
        )

        private inline fun <reified T : Enum<T>> named(field: String, word: String): T {
            val known = enumValues<T>().associateBy { it.name.lowercase() }
            return known[word]
                ?: throw InvalidRequestException("$field is one of ${known.keys.joinToString()}, not '$word'")
        }

        private fun messages(step: DoorStep): List<ChatMessage> =
            listOfNotNull(step.system?.let { ChatMessage("system", it) }, ChatMessage("user", step.prompt))

        private suspend fun logits() {
            val file = File(folder, "logits.f32")
            progress("computing logits of ${request.tokens.size} tokens")
            val vocabSize = checkNotNull(model).vocabSize
            val sha256 = FloatFile(file).use { out ->
                val chunks = request.chunks?.toIntArray()
                engine.score(request.tokens.toIntArray(), chunks) { _, rows -> out.write(rows) }
                out.finish()
            }
            content["logits"] = buildJsonObject {
                put("file", file.path)
                put("shape", JsonArray(listOf(request.tokens.size, vocabSize).map { JsonPrimitive(it) }))
                put("dtype", "float32")
                put("sha256", sha256)
            }
            sampleMemory()
        }

        private suspend fun chat() {
            val settings = request.chat ?: throw InvalidRequestException("the request has no chat")
            settings.check()
            load()
            var turns = 0
            val connected = ChatServer(listen, progress).serve(settings.socket) { host ->
                val session = ChatSession(engine, checkNotNull(model), settings, host.input, host.output)
                session.serve()
                turns = session.turns
            }
            content["chat"] = buildJsonObject {
                put("connected", connected)
                put("turns", turns)
            }
        }

        private suspend fun soak() {
            val asked = request.soak ?: throw InvalidRequestException("the request has no soak")
            val soak = Soak(engine, checkNotNull(model), asked, pssKb, heldHandles, progress)
            content[SOAK] = soak.run()
            sampleMemory()
        }

        /** Says after a soak what was not given back, now that engine and log are closed. */
        suspend fun end() {
            if (SOAK !in content) return
            var now = SoakCensus.take()
            var looks = LAST_LOOKS
            // A thread may take a while to end.
            while (now.threads.without(before.threads).isNotEmpty() && looks-- > 0) {
                delay(LOOK_MILLIS)
                now = SoakCensus.take()
            }
            content["left"] = buildJsonObject {
                put("threads", JsonArray(now.threads.without(before.threads).map(::JsonPrimitive)))
                put("files", JsonArray(now.files.without(before.files).map(::JsonPrimitive)))
            }
        }

        /** What is here more often than among [others]. */
        private fun List<String>.without(others: List<String>): List<String> =
            toMutableList().apply { for (other in others) remove(other) }

        private fun sampleMemory() {
            val pss = pssKb()
            pssPeakKb = maxOf(pssPeakKb, pss)
            log.append("""{"t":"memory","mono_ns":${nanoTime()},"pss_kb":$pss}""")
        }

        private suspend fun memory() = buildJsonObject {
            put("pss_kb", pssKb())
            put("pss_peak_kb", pssPeakKb)
            put("kv_bytes_used", engine.cacheCounters().usedBytes)
        }

        fun document(error: EngineException?): JsonObject = buildJsonObject {
            put("schema", "harness.result/1")
            put("protocol", DoorRequest.PROTOCOL)
            put("run", request.run)
            put("verb", request.verb)
            put("ok", error == null)
            if (error != null) {
                putJsonObject("error") {
                    put("kind", error.kind)
                    put("message", error.message)
                }
            }
            if (error == null) putJsonObject("info") { info() }
            for ((name, value) in content) put(name, value)
            if (request.verb == "load") put("texts", JsonArray(texts))
            put("steps", JsonArray(steps))
            putJsonObject("metrics") {
                put("records", totals?.records)
                put("sha256", totals?.sha256)
                put("file", File(folder, "metrics.jsonl").path)
            }
        }

        private fun JsonObjectBuilder.info() {
            put("application", application)
            put("version", version)
            put("engine", strategy.name)
            put("runtime", model?.runtime)
            put("abi", model?.abi)
            put("backend", backend())
            put("threads", model?.threads ?: request.threads)
            put("model", model?.name)
            put("quantization", model?.quantization)
            put("package", model?.packageId)
        }
    }

    private companion object {
        const val NANOS_PER_MILLI = 1_000_000L
        const val TOKENS_AHEAD = 64
        const val SOAK = "soak"
        const val LAST_LOOKS = 100
        const val LOOK_MILLIS = 100L
    }
}
