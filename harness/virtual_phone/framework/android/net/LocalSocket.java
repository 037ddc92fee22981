package android.net;

import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.channels.Channels;

/** A stream socket between processes of the phone. */
public class LocalSocket implements Closeable {
    private SystemSocket link;
    private Credentials peer;

    public LocalSocket() {}

    LocalSocket(SystemSocket link, Credentials peer) {
        this.link = link;
        this.peer = peer;
    }

    public void connect(LocalSocketAddress address) throws IOException {
        if (link != null) {
            throw new IOException("already connected");
        }
        link = SystemSocket.open("connect " + address.getName());
    }

    public InputStream getInputStream() throws IOException {
        return Channels.newInputStream(connected().channel);
    }

    public OutputStream getOutputStream() throws IOException {
        return Channels.newOutputStream(connected().channel);
    }

    public Credentials getPeerCredentials() throws IOException {
        connected();
        if (peer == null) {
            throw new IOException("only a listener knows who is at the other end");
        }
        return peer;
    }

    public synchronized boolean isConnected() {
        return link != null;
    }

    @Override
    public void close() throws IOException {
        if (link != null) {
            link.channel.close();
        }
    }

    private synchronized SystemSocket connected() throws IOException {
        if (link == null) {
            throw new IOException("not connected");
        }
        return link;
    }
}
