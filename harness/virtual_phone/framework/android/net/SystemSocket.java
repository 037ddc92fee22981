package android.net;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;

/**
 * A connection to the phone's system, which has the abstract sockets: Java reaches only those that
 * have a path. The protocol is that of {@code local_sockets.py}.
 */
final class SystemSocket {
    final SocketChannel channel;

    private SystemSocket(SocketChannel channel) {
        this.channel = channel;
    }

    /** Connects and asks for something; throws with the system's words if it refuses. */
    static SystemSocket open(String request) throws IOException {
        SystemSocket link = new SystemSocket(SocketChannel.open(StandardProtocolFamily.UNIX));
        try {
            link.channel.connect(UnixDomainSocketAddress.of("/dev/socket/local"));
            ByteBuffer line = StandardCharsets.UTF_8.encode(request + "\n");
            while (line.hasRemaining()) {
                link.channel.write(line);
            }
            String answer = link.line();
            if (!answer.equals("ok")) {
                throw new IOException(answer);
            }
            return link;
        } catch (IOException problem) {
            link.channel.close();
            throw problem;
        }
    }

    /** The next line. What follows it is left, so it is read byte by byte. */
    String line() throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        ByteBuffer next = ByteBuffer.allocate(1);
        while (true) {
            next.clear();
            if (channel.read(next) < 0) {
                throw new IOException("the connection ended");
            }
            if (next.get(0) == '\n') {
                return line.toString(StandardCharsets.UTF_8);
            }
            line.write(next.get(0));
        }
    }
}
