package dev.probe;

import android.app.Instrumentation;
import android.net.LocalServerSocket;
import android.net.LocalSocket;
import android.net.LocalSocketAddress;
import android.os.Build;
import android.os.Bundle;
import android.os.Debug;
import android.os.Process;
import android.util.Log;

import java.io.File;
import java.io.FileWriter;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Scanner;

/** Looks at the phone from inside an app: {@code am instrument -w -r -e verb VERB dev.probe/.Probe}. */
public class Probe extends Instrumentation {
    private static final int STARTED = 1;
    private static final int IN_PROGRESS = 2;
    private static final int RESULT_OK = -1;

    private Bundle arguments;

    static native int answer(int a, int b);

    @Override
    public void onCreate(Bundle arguments) {
        super.onCreate(arguments);
        this.arguments = arguments;
        start();
    }

    @Override
    public void onStart() {
        Bundle result = new Bundle();
        try {
            look(arguments.getString("verb", "info"), result);
        } catch (IOException | ReflectiveOperationException problem) {
            result.putString("error", problem.toString());
        }
        finish(RESULT_OK, result);
    }

    private void look(String verb, Bundle result) throws IOException, ReflectiveOperationException {
        switch (verb) {
            case "info":
                info(result);
                break;
            case "native":
                System.loadLibrary("probe");
                result.putInt("answer", answer(40, 2));
                break;
            case "status":
                Bundle progress = new Bundle();
                progress.putString("probe", "first\nsecond line");
                sendStatus(IN_PROGRESS, progress);
                break;
            case "log":
                int count = Integer.parseInt(arguments.getString("count", "10"));
                for (int i = 0; i < count; i++) {
                    Log.d("ProbeLog", "line " + i);
                }
                result.putInt("written", count);
                break;
            case "touch":
                result.putString("touched", touch(new File(arguments.getString("path"))));
                break;
            case "read":
                result.putString("text", read(new File(arguments.getString("path"))));
                break;
            case "listen":
                listen(arguments.getString("name"));
                break;
            case "connect":
                try (LocalServerSocket server = new LocalServerSocket("own")) {
                    new Thread(() -> answer(server)).start();
                    result.putString("own", ask("own"));
                }
                result.putString("other", ask(arguments.getString("name")));
                break;
            case "sleep":
                sendStatus(STARTED, new Bundle());
                sleep();
                break;
            case "allocate":
                allocate(Integer.parseInt(arguments.getString("mib", "1")));
                break;
            case "throw":
                throw new IllegalStateException("on purpose");
            case "segfault":
                Class<?> type = Class.forName("sun.misc.Unsafe");
                java.lang.reflect.Field field = type.getDeclaredField("theUnsafe");
                field.setAccessible(true);
                type.getMethod("putAddress", long.class, long.class).invoke(field.get(null), 0L, 0L);
                break;
            default:
                result.putString("error", "unknown verb " + verb);
        }
    }

    private void info(Bundle result) throws IOException {
        result.putBoolean("application", ProbeApplication.created);
        result.putString("abi", Build.SUPPORTED_ABIS[0]);
        result.putInt("sdk", Build.VERSION.SDK_INT);
        result.putString("arch", System.getProperty("os.arch"));
        result.putInt("uid", Process.myUid());
        result.putInt("pid", Process.myPid());
        result.putLong("pss", Debug.getPss());
        result.putString("media", getTargetContext().getExternalMediaDirs()[0].getPath());
        result.putString("files", getTargetContext().getFilesDir().getPath());
        result.putString("cpuinfo", read(new File("/proc/cpuinfo")).contains("asimddp") + "");
        result.putString("argument", arguments.getString("argument", "none"));
    }

    private static String touch(File file) {
        try (FileWriter writer = new FileWriter(file)) {
            writer.write("touched\n");
            return "yes";
        } catch (IOException problem) {
            return problem.getMessage();
        }
    }

    private static String read(File file) throws IOException {
        try (Scanner scanner = new Scanner(file).useDelimiter("\\A")) {
            return scanner.hasNext() ? scanner.next() : "";
        }
    }

    private void listen(String name) throws IOException {
        try (LocalServerSocket server = new LocalServerSocket(name)) {
            sendStatus(STARTED, new Bundle());
            answer(server);
        }
    }

    /** Sends one line of one connection back, behind the user who sent it. */
    private static void answer(LocalServerSocket server) {
        try (LocalSocket peer = server.accept()) {
            String line = new Scanner(peer.getInputStream()).nextLine();
            String answer = peer.getPeerCredentials().getUid() + " " + line + "\n";
            peer.getOutputStream().write(answer.getBytes());
        } catch (IOException problem) {
            throw new IllegalStateException(problem);
        }
    }

    private static String ask(String name) {
        try (LocalSocket socket = new LocalSocket()) {
            socket.connect(new LocalSocketAddress(name));
            socket.getOutputStream().write("hello\n".getBytes());
            return new Scanner(socket.getInputStream()).nextLine();
        } catch (IOException problem) {
            return problem.getMessage();
        }
    }

    /** Takes memory of the heap and outside it, the same amount of both, and keeps it. */
    private static void allocate(int mib) {
        List<Object> held = new ArrayList<>();
        for (int i = 0; i < mib; i++) {
            byte[] inside = new byte[1 << 20];
            Arrays.fill(inside, (byte) 1);
            held.add(inside);
            held.add(ByteBuffer.allocateDirect(1 << 20).put(inside));
        }
        sleep();
        held.clear();
    }

    private static void sleep() {
        try {
            Thread.sleep(600_000);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
