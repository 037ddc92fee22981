package android.net;

import java.io.Closeable;
import java.io.IOException;

/** Listens on an abstract name. */
public class LocalServerSocket implements Closeable {
    private final LocalSocketAddress address;
    private final SystemSocket link;

    public LocalServerSocket(String name) throws IOException {
        address = new LocalSocketAddress(name);
        link = SystemSocket.open("listen " + name);
    }

    public LocalSocketAddress getLocalSocketAddress() {
        return address;
    }

    /** Waits for a connection; the system says which, and gives it to whoever knows its ticket. */
    public LocalSocket accept() throws IOException {
        String[] words = link.line().split(" ");
        int pid = Integer.parseInt(words[1]);
        int uid = Integer.parseInt(words[2]);
        return new LocalSocket(
                SystemSocket.open("take " + words[0]), new Credentials(pid, uid, uid));
    }

    @Override
    public void close() throws IOException {
        link.channel.close();
    }
}
