package dev.alc.engine

import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** What happens when a conversation has outgrown the context, here of 32 tokens. */
class ContextPolicyTest {
    private val model = ScriptedModel("answer", window = 32)

    private fun asking(text: String, maxTokens: Int = 8) =
        turn(text, "c", maxTokens).copy(contextPolicy = ContextPolicy.DROP_OLDEST_TURNS)

    @Test
    fun `a full context is refused and the conversation stays as it was`() = runTest {
        val engine = loaded(model)
        engine.generate(turn("first", "c")).toList()
        val used = engine.cacheCounters().usedBytes
        assertTrue(engine.generate(turn("a much longer question", "c")).failure() is ContextFullException)
        assertEquals(used, engine.cacheCounters().usedBytes)
        val started = engine.generate(turn("b", "c", maxTokens = 1)).toList().started()
        assertEquals("<user>first</user>answer<end><user>b</user>", written(started.promptTokenIds))
    }

    @Test
    fun `the oldest turns go, as few as make room for prompt and answer`() = runTest {
        val engine = loaded(model)
        for (question in listOf("1", "2", "3")) {
            assertEquals(0, engine.generate(asking(question, maxTokens = 6)).toList().started().droppedMessages)
        }
        // Three turns are 30 tokens. One turn less leaves 20, and 4 of the new one.
        val events = engine.generate(asking("4")).toList()
        assertEquals(2, events.started().droppedMessages)
        assertEquals(
            "<user>2</user>answer<end><user>3</user>answer<end><user>4</user>",
            written(events.started().promptTokenIds),
        )
        assertEquals("answer", events.text())
        // What was dropped is gone for good, and what is left is in the cache.
        val next = engine.generate(asking("5", maxTokens = 1)).toList().started()
        assertEquals(2, next.droppedMessages)
        assertEquals(
            "<user>3</user>answer<end><user>4</user>answer<end><user>5</user>",
            written(next.promptTokenIds),
        )
    }

    @Test
    fun `system messages stay`() = runTest {
        val engine = loaded(model)
        val messages = listOf("system" to "be", "user" to "11", "assistant" to "22", "user" to "333333333333")
        val prompt = Prompt.Chat(messages.map { (role, text) -> ChatMessage(role, text) })
        val request = GenerationRequest(prompt, "c", 12, contextPolicy = ContextPolicy.DROP_OLDEST_TURNS)
        val started = engine.generate(request).toList().started()
        assertEquals("be<end><user>333333333333</user>", written(started.promptTokenIds))
        assertEquals(2, started.droppedMessages)
    }

    @Test
    fun `a newest turn that does not fit by itself is refused, and nothing is dropped`() = runTest {
        val engine = loaded(model)
        engine.generate(asking("1")).toList()
        assertTrue(engine.generate(asking("x".repeat(40))).failure() is ContextFullException)
        val started = engine.generate(asking("2", maxTokens = 6)).toList().started()
        assertEquals("<user>1</user>answer<end><user>2</user>", written(started.promptTokenIds))
    }

    @Test
    fun `text has no turns to drop`() = runTest {
        val engine = loaded(model)
        val request = GenerationRequest(
            Prompt.Text("x".repeat(40)),
            contextPolicy = ContextPolicy.DROP_OLDEST_TURNS,
        )
        assertTrue(engine.generate(request).failure() is ContextFullException)
    }
}
