package dev.alc.app

import android.net.LocalServerSocket
import android.net.LocalSocket

/** Listens on Linux's abstract socket [name], which `adb forward` reaches. */
internal class LocalChatListener(name: String) : ChatListener {
    private val server = LocalServerSocket(name)

    override fun accept(): ChatConnection = Accepted(server.accept())

    override fun close() = server.close()

    private class Accepted(private val socket: LocalSocket) : ChatConnection {
        override val uid = socket.peerCredentials.uid
        override val input = socket.inputStream
        override val output = socket.outputStream

        override fun close() = socket.close()
    }
}
