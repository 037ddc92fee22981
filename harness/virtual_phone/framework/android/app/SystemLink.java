package android.app;

import android.os.Bundle;

import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The app's line to the activity manager. The frames are those of {@code app_wire.py}: u32 length,
 * u8 kind, body; texts are u32 length and UTF-8.
 */
final class SystemLink {
    static final int TO_APP_BIND = 1;
    static final int TO_APP_LAUNCH_ACTIVITY = 2;

    private static final int HELLO = 1;
    private static final int STATUS = 2;
    private static final int FINISH = 3;
    private static final int EXCEPTION = 4;

    private final DataInputStream input;
    private final DataOutputStream output;

    private SystemLink(DataInputStream input, DataOutputStream output) {
        this.input = input;
        this.output = output;
    }

    /** Connects and shows the token that says which app this process was started for. */
    static SystemLink connect(String token) throws IOException {
        SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
        channel.connect(UnixDomainSocketAddress.of("/dev/socket/activity"));
        SystemLink link =
                new SystemLink(
                        new DataInputStream(Channels.newInputStream(channel)),
                        new DataOutputStream(
                                new BufferedOutputStream(Channels.newOutputStream(channel))));
        Frame hello = new Frame();
        hello.text(token);
        link.send(HELLO, hello);
        return link;
    }

    /** Waits for the next frame; the first byte of the answer's body has been taken as its kind. */
    Received receive() throws IOException {
        int length = input.readInt();
        int kind = input.readUnsignedByte();
        byte[] body = new byte[length - 1];
        input.readFully(body);
        return new Received(kind, new DataInputStream(new java.io.ByteArrayInputStream(body)));
    }

    void sendStatus(int code, Bundle values) throws IOException {
        send(STATUS, report(code, values));
    }

    void sendFinish(int code, Bundle values) throws IOException {
        send(FINISH, report(code, values));
    }

    void sendException(Throwable problem) throws IOException {
        Frame frame = new Frame();
        frame.text(problem.getClass().getName());
        frame.text(problem.toString());
        send(EXCEPTION, frame);
    }

    private static Frame report(int code, Bundle values) throws IOException {
        Frame frame = new Frame();
        frame.data.writeInt(code);
        frame.data.writeInt(values == null ? 0 : values.size());
        if (values != null) {
            for (String name : values.keySet()) {
                frame.text(name);
                frame.text(String.valueOf(values.get(name)));
            }
        }
        return frame;
    }

    private synchronized void send(int kind, Frame frame) throws IOException {
        byte[] body = frame.bytes.toByteArray();
        output.writeInt(body.length + 1);
        output.writeByte(kind);
        output.write(body);
        output.flush();
    }

    /** A frame that came: its kind and what can be read of its body. */
    static final class Received {
        final int kind;
        private final DataInputStream body;

        Received(int kind, DataInputStream body) {
            this.kind = kind;
            this.body = body;
        }

        String text() throws IOException {
            byte[] data = new byte[body.readInt()];
            body.readFully(data);
            return new String(data, StandardCharsets.UTF_8);
        }

        Map<String, String> bundle() throws IOException {
            Map<String, String> values = new LinkedHashMap<>();
            for (int left = body.readInt(); left > 0; left--) {
                String name = text();
                values.put(name, text());
            }
            return values;
        }
    }

    private static final class Frame {
        final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        final DataOutputStream data = new DataOutputStream(bytes);

        void text(String value) throws IOException {
            byte[] encoded = value.getBytes(StandardCharsets.UTF_8);
            data.writeInt(encoded.length);
            data.write(encoded);
        }
    }
}
