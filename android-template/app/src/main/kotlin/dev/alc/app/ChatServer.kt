package dev.alc.app

import dev.alc.engine.InvalidRequestException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeoutOrNull
import java.io.Closeable
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import kotlin.concurrent.thread

/** A connection, and the Linux user who made it. */
internal interface ChatConnection : Closeable {
    val uid: Int
    val input: InputStream
    val output: OutputStream
}

/** Where connections come in. */
internal interface ChatListener : Closeable {
    /** Waits for the next connection; to close the listener need not end the wait. */
    fun accept(): ChatConnection
}

/**
 * Lets one host into a chat. Any app of a phone can connect to an abstract socket, so only the
 * shell, as which adb comes, and root are let in.
 */
internal class ChatServer(
    private val listen: (name: String) -> ChatListener,
    private val progress: (text: String) -> Unit,
    private val patienceMillis: Long = 60_000,
) {
    /**
     * Listens on [socket], and holds a chat with the first host that comes. Returns false when
     * none came in time.
     *
     * @throws InvalidRequestException if the socket cannot be listened on.
     */
    suspend fun serve(socket: String, chat: suspend (ChatConnection) -> Unit): Boolean {
        val connection = try {
            listen(socket).use { host(it) } ?: return false
        } catch (problem: IOException) {
            throw InvalidRequestException("nobody can connect to the socket '$socket': ${problem.message}", problem)
        }
        connection.use {
            coroutineScope {
                // A host takes an app that is silent for minutes for one that hangs.
                val signs = launch {
                    while (true) {
                        progress("chatting")
                        delay(SIGN_MILLIS)
                    }
                }
                chat(connection)
                signs.cancel()
            }
        }
        return true
    }

    private suspend fun host(listener: ChatListener): ChatConnection? {
        val first = CompletableDeferred<ChatConnection>()
        // Nothing ends a wait for a connection on Android, so it has a thread that may be left behind.
        thread(isDaemon = true, name = "chat-accept") {
            try {
                do {
                    val connection = listener.accept()
                    val taken = connection.uid in HOSTS && first.complete(connection)
                    if (!taken) connection.close()
                } while (!taken)
            } catch (problem: IOException) {
                first.completeExceptionally(problem)
            }
        }
        progress(LISTENING)
        return withTimeoutOrNull(patienceMillis) { first.await() }.also { first.cancel() }
    }

    private companion object {
        const val LISTENING = "listening"
        const val SIGN_MILLIS = 60_000L
        val HOSTS = setOf(0, 2000)
    }
}
