package dev.alc.app

import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.Collections

class DoorTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val lines = Collections.synchronizedList(mutableListOf<String>())
    private val strategy = EchoStrategy()
    private var pss = 100L
    private var handles = 5L

    private fun serve(
        json: String,
        strategy: EchoStrategy = this.strategy,
        target: File = folder.newFolder(),
    ): JsonObject {
        val file = folder.newFile().apply { writeText(json) }
        val door = Door(
            strategy,
            application = "app",
            version = "1",
            pssKb = { pss++ },
            heldHandles = { handles },
            sink = lines::add,
            progress = {},
            pid = 7,
        )
        val outcome = runBlocking { door.serve(DoorRequest.read(file), target) }
        assertEquals(listOf("metrics.jsonl", "result.json"), target.list()!!.filter { it != "logits.f32" }.sorted())
        val result = Json.parseToJsonElement(outcome.file.readText()).jsonObject
        assertEquals("harness.result/1", result.text("schema"))
        assertEquals(1, result.int("protocol"))
        assertEquals(outcome.error == null, result.getValue("ok").jsonPrimitive.boolean)
        assertEquals(0, strategy.open)
        return result
    }

    private fun request(verb: String, rest: String = "", model: String? = "echo"): String {
        val path = if (model == null) "null" else "\"$model\""
        return """{"schema":"harness.request/1","protocol":1,"run":"0123abcd","verb":"$verb","model":$path$rest}"""
    }

    private fun JsonObject.text(key: String) = getValue(key).jsonPrimitive.content

    private fun JsonObject.int(key: String) = getValue(key).jsonPrimitive.int

    private fun JsonObject.ints(key: String) = getValue(key).jsonArray.map { it.jsonPrimitive.int }

    private fun JsonObject.steps() = getValue("steps").jsonArray.map { it.jsonObject }

    private fun JsonObject.records(): List<JsonObject> =
        File(getValue("metrics").jsonObject.text("file")).readLines().map { Json.parseToJsonElement(it).jsonObject }

    private fun JsonObject.kind() = getValue("error").jsonObject.text("kind")

    @Test
    fun `info needs no model`() {
        val result = serve(request("info", model = null))
        val info = result.getValue("info").jsonObject
        assertEquals("echo", info.text("engine"))
        assertEquals("test", info.text("backend"))
        assertEquals(JsonNull, info.getValue("model"))
        assertEquals(listOf("begin", "end"), result.records().map { it.text("t") })
    }

    @Test
    fun `load tokenizes and decodes texts`() {
        val result = serve(request("load", ""","texts":["Hé",""]"""))
        val texts = result.getValue("texts").jsonArray.map { it.jsonObject }
        assertEquals(listOf(72, 0xc3, 0xa9), texts[0].ints("token_ids"))
        assertEquals("Hé", texts[0].text("decoded"))
        assertEquals(JsonArray(emptyList()), texts[1].getValue("token_ids"))
        assertEquals(5, result.getValue("load").jsonObject.int("weights_bytes"))
        assertEquals(listOf("begin", "load", "memory", "end"), result.records().map { it.text("t") })
        assertEquals(100, result.getValue("memory").jsonObject.int("pss_peak_kb"))
    }

    @Test
    fun `a variant that is asked for is loaded and told`() {
        val result = serve(request("load", ""","cpu_variant":"armv8-a""""))
        assertEquals("test/armv8-a", result.getValue("info").jsonObject.text("backend"))
        assertEquals("test/armv8-a", result.records().first().text("backend"))
        val own = serve(request("load", ""","cpu_variant":null"""))
        assertEquals("test", own.getValue("info").jsonObject.text("backend"))
    }

    @Test
    fun `steps of a conversation go on and others begin anew`() {
        val steps = ""","steps":[
            {"id":"p1","prompt":"v","conversation":"a","max_tokens":3},
            {"id":"p2","prompt":"w","conversation":"a"},
            {"id":"p3","prompt":"xy","conversation":"b","template":false,"keep":false}]"""
        val result = serve(request("generate", steps))
        val (first, second, third) = result.steps()
        assertEquals("wxy", first.text("text"))
        assertEquals("length", first.text("finish_reason"))
        assertEquals("\nv".map { it.code }, first.ints("prompt_token_ids"))
        // What the first answer's last token needs is computed with the second prompt.
        assertEquals("\nvwxy\nw".map { it.code }, second.ints("prompt_token_ids"))
        assertEquals(4, second.int("cached_tokens"))
        assertEquals(3, second.int("prompt_tokens"))
        assertEquals("stop", second.text("finish_reason"))
        assertEquals("xyz".map { it.code }, second.ints("token_ids"))
        assertEquals("xyz", second.getValue("chunks").jsonArray.joinToString("") { it.jsonArray[1].jsonPrimitive.content })
        assertEquals("z", third.text("text"))
        // The ten tokens of the first conversation in pages of four, four bytes each.
        assertEquals(12 * 4, result.getValue("memory").jsonObject.int("kv_bytes_used"))
    }

    @Test
    fun `the records tell each step in order and agree with the result`() {
        val result = serve(request("generate", ""","steps":[{"id":"p1","prompt":"a","max_tokens":20}]"""))
        val records = result.records()
        val kinds = records.map { it.text("t") }
        val expected = listOf("begin", "load", "memory", "request", "prefill", "tokens", "finish", "memory", "end")
        assertEquals(expected, kinds.zipWithNext().filter { (a, b) -> a != b }.map { it.first } + kinds.last())
        val tokens = records.filter { it.text("t") == "tokens" }
        assertEquals(result.steps().single().ints("token_ids"), tokens.flatMap { it.ints("ids") })
        assertEquals(tokens.runningFold(0) { sum, record -> sum + record.ints("ids").size }.dropLast(1), tokens.map { it.int("first") })
        val nanos = tokens.flatMap { record -> record.getValue("ns").jsonArray.map { it.jsonPrimitive.long } }
        assertEquals(nanos.sorted(), nanos)
        val finish = records.single { it.text("t") == "finish" }
        assertEquals(20, finish.int("tokens"))
        val file = File(result.getValue("metrics").jsonObject.text("file")).readText()
        val before = file.substring(0, file.trimEnd().lastIndexOf('\n') + 1).toByteArray()
        val sha = MessageDigest.getInstance("SHA-256").digest(before).joinToString("") { "%02x".format(it) }
        assertEquals(sha, records.last().text("sha256"))
        assertEquals(sha, result.getValue("metrics").jsonObject.text("sha256"))
        assertEquals(records.size - 1, records.last().int("records"))
        assertEquals(3, lines.count { "\"t\":\"end\"" in it })
    }

    @Test
    fun `a stop after so many tokens ends the answer and keeps it`() {
        val result = serve(request("generate", ""","steps":[{"id":"s","prompt":"A","max_tokens":50,"stop_after":5}]"""))
        val step = result.steps().single()
        assertEquals("cancelled", step.text("finish_reason"))
        assertTrue(step.ints("token_ids").size in 5..8)
    }

    @Test
    fun `nothing is left in the cache when no step is kept`() {
        val steps = (1..5).joinToString(",") { """{"id":"p$it","prompt":"x","conversation":"c$it","keep":false}""" }
        val result = serve(request("generate", ""","steps":[$steps]"""))
        assertEquals(0, result.getValue("memory").jsonObject.int("kv_bytes_used"))
    }

    @Test
    fun `logits are written as little-endian floats with their hash`() {
        val result = serve(request("logits", ""","tokens":[97,98,99,100,101]"""))
        val logits = result.getValue("logits").jsonObject
        assertEquals(listOf(5, 257), logits.ints("shape"))
        val bytes = File(logits.text("file")).readBytes()
        val floats = FloatArray(5 * 257)
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(floats)
        val best = List(5) { row -> (0 until 257).maxBy { floats[row * 257 + it] } }
        assertEquals(listOf(98, 99, 100, 101, 102), best)
        val sha = MessageDigest.getInstance("SHA-256").digest(bytes)
        assertArrayEquals(sha, logits.text("sha256").chunked(2).map { it.toInt(16).toByte() }.toByteArray())
    }

    @Test
    fun `every failure is a result with its kind and a complete log`() {
        val failures = mapOf(
            request("dance") to "invalid-request",
            request("load", model = null) to "invalid-request",
            request("load", model = "missing") to "model-not-found",
            request("load", ""","threads":0""") to "invalid-request",
            request("load", ""","context":-5""") to "invalid-request",
            request("generate") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"","max_tokens":3}]""") to null,
            request("generate", ""","steps":[{"id":"a","prompt":"","template":false}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"a!b"}]""") to "backend",
            request("generate", ""","steps":[{"id":"a","prompt":"b","temperature":-1.0}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","temperature":NaN}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","min_p":1.5}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","typical_p":0}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","logit_bias":{"-1":0}}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","stop":[""]}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","response_format":"yaml"}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","context_policy":"hope"}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"b","max_tokens":0}]""") to "invalid-request",
            request("generate", ""","steps":[{"id":"a","prompt":"${"x".repeat(200)}"}]""") to "context-full",
            request("logits") to "invalid-request",
            request("logits", ""","tokens":[99999]""") to "invalid-request",
            request("logits", ""","tokens":[97,98],"chunks":[1]""") to "invalid-request",
            request("logits", ""","tokens":[97,98],"chunks":[2,0]""") to "invalid-request",
            request("logits", ""","tokens":[97],"chunks":[]""") to "invalid-request",
            request("logits", ""","tokens":[${List(200) { 1 }.joinToString(",")}]""") to "context-full",
        )
        for ((json, kind) in failures) {
            val result = serve(json)
            if (kind == null) assertTrue(json, "error" !in result) else assertEquals(json, kind, result.kind())
            assertEquals(json, "end", result.records().last().text("t"))
            if (kind != null) assertTrue(json, result.records().any { it.text("t") == "error" })
        }
    }

    @Test
    fun `a file that cannot be written is a failure of its own kind`() {
        val target = folder.newFolder()
        File(target, "logits.f32").mkdir()
        assertEquals("storage", serve(request("logits", ""","tokens":[97]"""), target = target).kind())
    }

    @Test
    fun `steps before a failure are kept`() {
        val steps = ""","steps":[{"id":"good","prompt":"x","conversation":"a"},{"id":"bad","prompt":"!","conversation":"b"}]"""
        val result = serve(request("generate", steps))
        assertEquals("backend", result.kind())
        assertEquals("good", result.steps().first().text("id"))
    }

    @Test
    fun `a strategy that cannot run says what is missing`() {
        for (verb in listOf("info", "load")) {
            val result = serve(request(verb), EchoStrategy(listOf("no library")))
            assertEquals("strategy-unavailable", result.kind())
            assertTrue("no library" in result.getValue("error").jsonObject.text("message"))
            assertFalse("info" in result)
        }
    }
}
