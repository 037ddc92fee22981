package android.util;

import android.os.Process;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.net.UnknownHostException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.time.Instant;

/**
 * Writes to the phone's log. Records are liblog's; they go over a stream socket, each after its
 * length, because Java has no Unix datagrams ({@code log_socket.py} reads them).
 */
public final class Log {
    public static final int VERBOSE = 2;
    public static final int DEBUG = 3;
    public static final int INFO = 4;
    public static final int WARN = 5;
    public static final int ERROR = 6;
    public static final int ASSERT = 7;

    private static final int MAIN = 0;
    private static final int CRASH = 4;
    /** Bytes of an entry: priority, tag, message and two zeros. */
    private static final int MAX_PAYLOAD = 4068;
    private static final int HEADER = 11;
    private static SocketChannel channel;

    private Log() {}

    public static int v(String tag, String message) {
        return println(VERBOSE, tag, message);
    }

    public static int v(String tag, String message, Throwable problem) {
        return println(VERBOSE, tag, with(message, problem));
    }

    public static int d(String tag, String message) {
        return println(DEBUG, tag, message);
    }

    public static int d(String tag, String message, Throwable problem) {
        return println(DEBUG, tag, with(message, problem));
    }

    public static int i(String tag, String message) {
        return println(INFO, tag, message);
    }

    public static int i(String tag, String message, Throwable problem) {
        return println(INFO, tag, with(message, problem));
    }

    public static int w(String tag, String message) {
        return println(WARN, tag, message);
    }

    public static int w(String tag, String message, Throwable problem) {
        return println(WARN, tag, with(message, problem));
    }

    public static int w(String tag, Throwable problem) {
        return println(WARN, tag, getStackTraceString(problem));
    }

    public static int e(String tag, String message) {
        return println(ERROR, tag, message);
    }

    public static int e(String tag, String message, Throwable problem) {
        return println(ERROR, tag, with(message, problem));
    }

    public static int wtf(String tag, String message) {
        return println(ASSERT, tag, message);
    }

    public static boolean isLoggable(String tag, int level) {
        return level >= INFO;
    }

    public static String getStackTraceString(Throwable problem) {
        if (problem == null) {
            return "";
        }
        for (Throwable each = problem; each != null; each = each.getCause()) {
            if (each instanceof UnknownHostException) {
                return "";
            }
        }
        StringWriter text = new StringWriter();
        problem.printStackTrace(new PrintWriter(text, true));
        return text.toString();
    }

    public static int println(int priority, String tag, String message) {
        return write(MAIN, priority, tag, message);
    }

    /** What the runtime says of an app's fatal exception; not part of Android. */
    public static void crash(String message) {
        write(CRASH, ERROR, "AndroidRuntime", message);
    }

    private static String with(String message, Throwable problem) {
        return message + '\n' + getStackTraceString(problem);
    }

    private static synchronized int write(int buffer, int priority, String tag, String message) {
        byte[] name = (tag == null ? "" : tag).getBytes(StandardCharsets.UTF_8);
        byte[] text = (message == null ? "null" : message).getBytes(StandardCharsets.UTF_8);
        int nameLength = Math.min(name.length, MAX_PAYLOAD - 3);
        int textLength = Math.min(text.length, MAX_PAYLOAD - 3 - nameLength);
        int payload = 1 + nameLength + 1 + textLength + 1;
        Instant now = Instant.now();
        ByteBuffer record = ByteBuffer.allocate(2 + HEADER + payload);
        record.putShort((short) (HEADER + payload));
        record.order(ByteOrder.LITTLE_ENDIAN);
        record.put((byte) buffer).putShort((short) Process.myTid());
        record.putInt((int) now.getEpochSecond()).putInt(now.getNano());
        record.put((byte) priority).put(name, 0, nameLength).put((byte) 0);
        record.put(text, 0, textLength).put((byte) 0);
        record.flip();
        try {
            if (channel == null) {
                channel = SocketChannel.open(StandardProtocolFamily.UNIX);
                channel.connect(UnixDomainSocketAddress.of("/dev/socket/logdw"));
            }
            while (record.hasRemaining()) {
                channel.write(record);
            }
        } catch (IOException problem) {
            channel = null; // the log daemon restarted: this entry is lost, as on a phone
            return -1;
        }
        return payload;
    }
}
