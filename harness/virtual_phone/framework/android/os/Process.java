package android.os;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** This process and its threads. */
public class Process {
    public static final int THREAD_PRIORITY_DEFAULT = 0;
    public static final int THREAD_PRIORITY_BACKGROUND = 10;
    public static final int THREAD_PRIORITY_FOREGROUND = -2;
    public static final int THREAD_PRIORITY_URGENT_DISPLAY = -8;

    private static final long START = SystemClock.elapsedRealtime();
    private static final int PID = (int) ProcessHandle.current().pid();
    private static final ThreadLocal<Integer> TID = ThreadLocal.withInitial(Process::readThreadId);

    public Process() {}

    public static final int myPid() {
        return PID;
    }

    public static final int myTid() {
        return TID.get();
    }

    public static final int myUid() {
        try {
            return (Integer) Files.getAttribute(Path.of("/proc/self"), "unix:uid");
        } catch (IOException problem) {
            throw new IllegalStateException(problem);
        }
    }

    public static final boolean is64Bit() {
        return true;
    }

    /** Priorities are taken and ignored: an unprivileged Linux process may not raise them. */
    public static final void setThreadPriority(int priority) {}

    public static final void setThreadPriority(int tid, int priority) {}

    public static final void killProcess(int pid) {
        if (pid == PID) {
            Runtime.getRuntime().halt(137);
        }
        ProcessHandle.of(pid).ifPresent(ProcessHandle::destroyForcibly);
    }

    public static final long getElapsedCpuTime() {
        return ProcessHandle.current().info().totalCpuDuration().map(d -> d.toMillis()).orElse(0L);
    }

    public static final long getStartElapsedRealtime() {
        return START;
    }

    private static int readThreadId() {
        try {
            String link = Files.readSymbolicLink(Path.of("/proc/thread-self")).toString();
            return Integer.parseInt(link.substring(link.lastIndexOf('/') + 1));
        } catch (IOException | NumberFormatException problem) {
            return PID;
        }
    }
}
