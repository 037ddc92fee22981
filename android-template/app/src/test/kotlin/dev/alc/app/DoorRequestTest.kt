package dev.alc.app

import dev.alc.engine.InvalidRequestException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class DoorRequestTest {
    @get:Rule
    val folder = TemporaryFolder()

    private fun read(json: String) = DoorRequest.read(folder.newFile().apply { writeText(json) })

    @Test
    fun `what is left out takes its default`() {
        val request = read("""{"schema":"harness.request/1","protocol":1,"run":"0123abcd","verb":"generate",
            "steps":[{"id":"a","prompt":"b"}]}""")
        assertEquals(null, request.threads)
        val step = request.steps.single()
        assertEquals(64, step.maxTokens)
        assertEquals(0f, step.temperature)
        assertTrue(step.template && step.keep)
    }

    @Test
    fun `every field of a step is read`() {
        val step = read("""{"schema":"harness.request/1","protocol":1,"run":"0123abcd","verb":"generate",
            "steps":[{"id":"a","prompt":"b","min_p":0.1,"typical_p":0.9,"frequency_penalty":-1,
            "presence_penalty":2,"logit_bias":{"7":-Infinity,"9":1.5},"stop":["x","yz"],
            "response_format":"json","context_policy":"drop_oldest_turns"}]}""").steps.single()
        assertEquals(listOf(0.1f, 0.9f, -1f, 2f), listOf(step.minP, step.typicalP, step.frequencyPenalty, step.presencePenalty))
        assertEquals(mapOf(7 to Float.NEGATIVE_INFINITY, 9 to 1.5f), step.logitBias)
        assertEquals(listOf("x", "yz"), step.stop)
        assertEquals("json" to "drop_oldest_turns", step.responseFormat to step.contextPolicy)
    }

    @Test
    fun `what is not a request is refused with its file and cause`() {
        val good = """"schema":"harness.request/1","protocol":1,"run":"0123abcd","verb":"info""""
        val wrong = listOf(
            "",
            "[]",
            "{$good",
            "{}",
            "{$good,\"surprise\":1}",
            "{$good,\"steps\":[{\"id\":\"a\"}]}",
            "{$good,\"steps\":[{\"id\":\"a\",\"prompt\":\"b\",\"temperature\":\"warm\"}]}",
            "{$good,\"steps\":[{\"id\":\"a\",\"prompt\":\"b\",\"logit_bias\":{\"the\":1}}]}",
            "{$good,\"steps\":[{\"id\":\"a\",\"prompt\":\"b\",\"stop\":\"end\"}]}",
            "{$good,\"threads\":\"many\"}",
            "{$good,\"threads\":1e99}",
            "{${good.replace("request/1", "request/2")}}",
            "{${good.replace("\"protocol\":1", "\"protocol\":2")}}",
            "{${good.replace("0123abcd", "../../etc")}}",
        )
        for (json in wrong) {
            val failure = assertThrows(json, InvalidRequestException::class.java) { read(json) }
            assertTrue(failure.message!!.isNotEmpty())
        }
        assertThrows(InvalidRequestException::class.java) { DoorRequest.read(File(folder.root, "none.json")) }
    }
}
