package android.os;

/** Clocks. The phone never sleeps, so uptime and elapsed time are the same. */
public final class SystemClock {
    private static final long NANOS_PER_MILLI = 1_000_000L;

    private SystemClock() {}

    public static long uptimeMillis() {
        return System.nanoTime() / NANOS_PER_MILLI;
    }

    public static long elapsedRealtime() {
        return System.nanoTime() / NANOS_PER_MILLI;
    }

    public static long elapsedRealtimeNanos() {
        return System.nanoTime();
    }

    public static long currentThreadTimeMillis() {
        return java.lang.management.ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime()
                / NANOS_PER_MILLI;
    }

    public static void sleep(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
