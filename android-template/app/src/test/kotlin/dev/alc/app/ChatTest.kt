package dev.alc.app

import dev.alc.engine.InferenceStrategy
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadedModel
import dev.alc.engine.ModelLoader
import dev.alc.engine.ModelSession
import io.kotest.property.Arb
import io.kotest.property.arbitrary.byte
import io.kotest.property.arbitrary.byteArray
import io.kotest.property.arbitrary.int
import io.kotest.property.checkAll
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.rules.Timeout
import java.io.BufferedReader
import java.io.ByteArrayInputStream
import java.io.Closeable
import java.io.IOException
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread

class ChatTest {
    @get:Rule
    val folder = TemporaryFolder()

    @get:Rule
    val timeout: Timeout = Timeout.seconds(60)

    private val server = ServerSocket(0, 8, InetAddress.getLoopbackAddress())
    private val uids = CopyOnWriteArrayList<Int>()
    private val listening = CountDownLatch(1)
    private val decodes = Semaphore(Int.MAX_VALUE / 2)
    private val strategy = EchoStrategy()
    private lateinit var app: Thread
    private lateinit var result: JsonObject

    private fun start(settings: String = "", schema: String = "harness.chat/1", socket: String = "name") {
        val chat = """{"schema":"$schema","socket":"$socket"$settings}"""
        val request = """{"schema":"harness.request/1","protocol":1,"run":"0123abcd","verb":"chat",""" +
            """"model":"echo","chat":$chat}"""
        val file = folder.newFile().apply { writeText(request) }
        val door = Door(
            GatedStrategy(strategy, decodes),
            application = "app",
            version = "1",
            pssKb = { 1 },
            heldHandles = { 0 },
            sink = {},
            progress = { if (it == "listening") listening.countDown() },
            listen = ::Listener,
        )
        app = thread {
            val outcome = runBlocking { door.serve(DoorRequest.read(file), folder.newFolder()) }
            result = Json.parseToJsonElement(outcome.file.readText()).jsonObject
            assertEquals(0, strategy.open)
            listening.countDown()
        }
        listening.await()
    }

    private fun end(): JsonObject {
        app.join()
        return result
    }

    @Before
    fun onlyTheShell() {
        uids += 2000
    }

    @After
    fun close() {
        server.close()
    }

    private inner class Listener(name: String) : ChatListener {
        init {
            if (name == "taken") throw IOException("Address already in use")
        }

        override fun accept(): ChatConnection {
            val socket = server.accept()
            return object : ChatConnection {
                override val uid = uids.removeAt(0)
                override val input = socket.getInputStream()
                override val output = socket.getOutputStream()

                override fun close() = socket.close()
            }
        }

        override fun close() = Unit
    }

    private inner class Host : Closeable {
        private val socket = Socket(server.inetAddress, server.localPort)
        private val lines: BufferedReader = socket.getInputStream().bufferedReader()

        fun say(line: String) = socket.getOutputStream().write((line + "\n").toByteArray())

        fun turn(text: String) = say("""{"t":"turn","text":"$text"}""")

        fun hear(): JsonObject? = lines.readLine()?.let { Json.parseToJsonElement(it).jsonObject }

        /** The text of the answer, and the message that ended it. */
        fun answer(): Pair<String, JsonObject> {
            val text = StringBuilder()
            while (true) {
                val message = checkNotNull(hear())
                if (message.text("t") != "piece") return text.toString() to message
                text.append(message.text("text"))
            }
        }

        override fun close() = socket.close()
    }

    private fun JsonObject.text(key: String) = getValue(key).jsonPrimitive.content

    private fun JsonObject.int(key: String) = getValue(key).jsonPrimitive.int

    private fun JsonObject.part(key: String) = getValue(key).jsonObject

    private fun chat(settings: String = "", block: (Host) -> Unit): JsonObject {
        start(settings)
        Host().use { host ->
            assertEquals("ready", checkNotNull(host.hear()).text("t"))
            block(host)
        }
        return end()
    }

    @Test
    fun `a chat begins with what the model is`() {
        start()
        Host().use { host ->
            val ready = checkNotNull(host.hear())
            assertEquals("harness.chat/1", ready.text("schema"))
            assertEquals("echo", ready.text("model"))
            assertEquals(128, ready.int("context"))
            host.say("""{"t":"bye"}""")
            assertNull(host.hear())
        }
        assertTrue(end().part("chat").getValue("connected").jsonPrimitive.boolean)
    }

    @Test
    fun `a second turn computes only what is new`() {
        val result = chat { host ->
            host.turn("v")
            val (text, done) = host.answer()
            assertEquals("wxyz", text)
            assertEquals("stop", done.text("reason"))
            assertEquals(0, done.part("usage").int("cached_tokens"))
            host.turn("x")
            val (second, usage) = host.answer().let { it.first to it.second.part("usage") }
            assertEquals("yz", second)
            // The first question and answer; the answer's last token has not been computed yet.
            assertTrue("$usage", usage.int("cached_tokens") >= 5)
            assertEquals(8, usage.int("prompt_tokens"))
        }
        assertEquals(2, result.part("chat").int("turns"))
    }

    @Test
    fun `times and context come with the answer`() {
        chat { host ->
            host.turn("v")
            val done = host.answer().second
            assertEquals(6, done.int("context_used"))
            val times = done.part("timings")
            assertTrue(times.getValue("first_token_ns").jsonPrimitive.long >= times.getValue("prefill_ns").jsonPrimitive.long)
            assertTrue(times.getValue("decode_ns").jsonPrimitive.long > 0)
        }
    }

    @Test
    fun `a stop ends an answer and the chat goes on`() {
        decodes.drainPermits()
        decodes.release(1)
        chat { host ->
            host.turn("a")
            assertEquals("piece", host.hear()?.text("t"))
            host.say("""{"t":"stop"}""")
            // A refused turn proves that the stop has been heard.
            host.turn("b")
            while (true) {
                val message = checkNotNull(host.hear())
                if (message.text("t") == "error") {
                    assertEquals("lifecycle", message.text("kind"))
                    break
                }
                assertEquals("piece", message.text("t"))
            }
            decodes.release(1000)
            val done = host.answer().second
            assertEquals("done", done.text("t"))
            assertEquals("cancelled", done.text("reason"))
            host.turn("y")
            assertEquals("z", host.answer().first)
        }
    }

    @Test
    fun `a reset forgets the conversation and starts with the system's words again`() {
        chat(""","system":"be brief"""") { host ->
            host.turn("x")
            val first = host.answer().second.part("usage").int("prompt_tokens")
            host.say("""{"t":"reset"}""")
            assertEquals("reset", host.hear()?.text("t"))
            host.turn("x")
            val usage = host.answer().second.part("usage")
            assertEquals(first, usage.int("prompt_tokens"))
            assertEquals(0, usage.int("cached_tokens"))
            assertEquals("\nbe brief\nx".length, first)
        }
    }

    @Test
    fun `an error of the model is told and the chat goes on`() {
        chat { host ->
            host.turn("!")
            assertEquals("backend", host.answer().second.text("kind"))
            host.turn("y")
            assertEquals("z", host.answer().first)
        }
    }

    @Test
    fun `a turn longer than the context is refused and the chat goes on`() {
        chat { host ->
            host.turn("a".repeat(1 shl 20))
            assertEquals("context-full", host.answer().second.text("kind"))
            host.turn("y")
            assertEquals("z", host.answer().first)
        }
    }

    @Test
    fun `what is no message is an error and changes nothing`() {
        chat { host ->
            for (line in listOf("", "{", "[]", """{"t":"sing"}""", """{"t":"turn"}""", """{"t":"stop","x":1}""")) {
                host.say(line)
                assertEquals(line, "invalid-request", host.hear()?.text("kind"))
            }
            host.turn("y")
            assertEquals("z", host.answer().first)
        }
    }

    @Test
    fun `a host that vanishes in mid-answer ends the chat and unloads the model`() {
        decodes.drainPermits()
        decodes.release(1)
        start()
        Host().use { host ->
            host.hear()
            host.turn("a")
            assertEquals("piece", host.hear()?.text("t"))
        }
        decodes.release(1000)
        assertTrue(end().getValue("ok").jsonPrimitive.boolean)
    }

    @Test
    fun `only the shell and root are let in`() {
        uids.clear()
        uids += listOf(10123, 1000, 0)
        start()
        repeat(2) { Host().use { assertNull(it.hear()) } }
        Host().use { assertEquals("ready", it.hear()?.text("t")) }
        assertTrue(end().part("chat").getValue("connected").jsonPrimitive.boolean)
    }

    @Test
    fun `nobody who comes in time is the end`() = runBlocking {
        var chats = 0
        val served = ChatServer(::Listener, {}, patienceMillis = 50).serve("name") { chats++ }
        assertFalse(served)
        assertEquals(0, chats)
    }

    @Test
    fun `settings that cannot be are refused before the model is loaded`() {
        start(""","temperature":-1""")
        assertEquals("invalid-request", end().part("error").text("kind"))
    }

    @Test
    fun `another protocol is refused`() {
        start(schema = "harness.chat/2")
        assertTrue("harness.chat/1" in end().part("error").text("message"))
    }

    @Test
    fun `a socket that is taken is told`() {
        start(socket = "taken")
        assertTrue("Address already in use" in end().part("error").text("message"))
    }

    @Test
    fun `no bytes break the reader and none are kept beyond the bound`() = runBlocking<Unit> {
        checkAll(200, Arb.byteArray(Arb.int(0..200), Arb.byte())) { bytes ->
            val messages = HostMessages(ByteArrayInputStream(bytes + "\n{\"t\":\"bye\"}\n".toByteArray()), maxBytes = 64)
            val heard = ArrayList<HostMessage>()
            while (true) {
                try {
                    heard += messages.next() ?: break
                } catch (_: InvalidRequestException) {
                    continue
                }
            }
            assertTrue(heard.single() is HostMessage.Bye)
        }
    }
}

/** A model that decodes a token for each permit. */
private class GatedStrategy(
    private val inner: InferenceStrategy,
    private val permits: Semaphore,
) : InferenceStrategy by inner {
    override fun loader() = object : ModelLoader {
        override suspend fun load(
            path: String,
            options: LoadOptions,
            onProgress: (LoadProgress) -> Unit,
        ): LoadedModel {
            val model = inner.loader().load(path, options, onProgress)
            return object : LoadedModel by model {
                override fun openSession() = Gated(model.openSession())
            }
        }
    }

    private inner class Gated(private val session: ModelSession) : ModelSession by session {
        override fun decode(token: Int) = session.decode(token).also {
            check(permits.tryAcquire(30, TimeUnit.SECONDS)) { "nobody let the model go on" }
        }
    }
}
