package dev.alc.app

import dev.alc.engine.InferenceStrategy
import dev.alc.runtime.MLCInferenceStrategy
import dev.alc.runtime.TVMRuntime
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.InputStream

class SoakTest {
    @get:Rule
    val folder = TemporaryFolder()

    private fun soak(
        strategy: InferenceStrategy,
        model: String,
        rest: String,
        heldHandles: () -> Long = { 0 },
    ): JsonObject {
        val request = """{"schema":"harness.request/1","protocol":1,"run":"0123abcd","verb":"soak","model":"$model"$rest}"""
        val file = folder.newFile().apply { writeText(request) }
        val door = Door(strategy, "app", "1", pssKb = { 1 }, heldHandles = heldHandles, sink = {}, progress = {})
        val outcome = runBlocking { door.serve(DoorRequest.read(file), folder.newFolder()) }
        return Json.parseToJsonElement(outcome.file.readText()).jsonObject
    }

    private fun JsonObject.inner(key: String) = getValue(key).jsonObject

    private fun JsonObject.int(key: String) = getValue(key).jsonPrimitive.int

    private fun JsonObject.samples() = getValue("samples").jsonArray.map { it.jsonObject }

    @Test
    fun `every answer of a real model is what it is alone, and nothing is left`() {
        val library = System.getenv("ALC_RUNTIME")
        val model = System.getenv("ALC_PACKAGE")
        assumeTrue("no native library or no package was given (ALC_RUNTIME, ALC_PACKAGE)", library != null && model != null)
        val strategy = MLCInferenceStrategy(folder.newFolder(), library)
        val result = soak(strategy, model, ""","context":1536,"soak":{"generations":120,"seed":1}""") { TVMRuntime.load().heldHandles }
        val soak = result.inner("soak")
        assertEquals("${soak["examples"]}", 0, soak.int("differing"))
        assertEquals(0, soak.int("evictions"))
        assertEquals(120, soak.int("generations"))
        val counts = soak.inner("counts")
        val every = listOf("json", "stops", "chat", "slow_collector", "cut_stop", "cut_leave", "cut_cancel", "end_gone", "end_cancelled")
        for (kind in every) assertTrue("$kind in $counts", counts.int(kind) > 0)
        val samples = soak.samples()
        for (held in listOf("kv_bytes_used", "handles", "threads", "files")) {
            assertEquals(held, 1, samples.map { it.int(held) }.distinct().size)
        }
        assertEquals(0, samples.last().int("kv_bytes_used"))
        val left = result.inner("left")
        assertEquals("{\"threads\":[],\"files\":[]}", left.toString())
    }

    @Test
    fun `equal seeds soak the same`() {
        val soaks = List(2) { soak(EchoStrategy(), "echo", ""","soak":{"generations":30,"seed":7}""").inner("soak") }
        val asked = soaks.map { it.inner("counts").filterKeys { key -> !key.startsWith("end_") } }
        assertEquals(asked[0], asked[1])
        assertEquals(30, soaks[0].int("generations"))
        assertEquals(30, soaks[0].samples().last().int("generations"))
    }

    @Test
    fun `an answer that is not what it is alone is found and told`() {
        val soak = soak(EchoStrategy(slips = 30), "echo", ""","soak":{"generations":40,"max_tokens":8}""").inner("soak")
        assertTrue(soak.int("differing") > 0)
        val example = soak.getValue("examples").jsonArray.first().jsonObject
        assertEquals(setOf("generation", "cut", "stop", "together", "alone"), example.keys)
    }

    @Test
    fun `what is left open is told`() {
        val file = folder.newFile("held")
        val open = ArrayList<InputStream>()
        val result = soak(EchoStrategy(), "echo", ""","soak":{"generations":9}""") {
            open += file.inputStream()
            open.size.toLong()
        }
        open.forEach { it.close() }
        val samples = result.inner("soak").samples()
        assertEquals(samples.indices.map { it + 1 }, samples.map { it.int("handles") })
        val left = result.inner("left").getValue("files").jsonArray.map { it.jsonPrimitive.content }
        assertEquals(samples.map { file.path }, left)
    }

    @Test
    fun `a soak that makes no sense is refused`() {
        val wrong = listOf(
            "",
            ""","soak":{"generations":0}""",
            ""","soak":{"generations":1,"conversations":0}""",
            ""","soak":{"generations":1,"conversations":9}""",
            ""","soak":{"generations":1,"max_tokens":0}""",
            ""","context":8,"soak":{"generations":1}""",
        )
        for (rest in wrong) {
            assertEquals(rest, "\"invalid-request\"", soak(EchoStrategy(), "echo", rest).inner("error")["kind"].toString())
        }
    }
}
