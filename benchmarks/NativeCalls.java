import com.sun.management.ThreadMXBean;
import dev.alc.runtime.NativeBindings;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;

/**
 * What the decode thread spends in native code, call by call, and what is allocated meanwhile.
 * Stands between CallFrame and NativeBindings, by Retarget.
 */
public final class NativeCalls {
    private static final int MOST = 1 << 16;
    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    static final long[] begins = new long[MOST];
    static final long[] ends = new long[MOST];
    static volatile int count;

    /** Of the calls number `from` and `until`: when, and what had been allocated before. */
    static final Mark[] marks = new Mark[2];

    private static int from = -1;
    private static int until = -1;

    /** Bytes that this thread, and all threads, had allocated at a time. */
    record Mark(long nanos, long ownBytes, long allBytes) {}

    /** Begins anew; marks the calls with these numbers, if they are not negative. */
    static void begin(int first, int last) {
        count = 0;
        from = first;
        until = last;
    }

    public static byte[] call(long function, ByteBuffer frame, int slots) {
        int number = count;
        if (number == from) marks[0] = mark();
        if (number == until) marks[1] = mark();
        begins[number] = System.nanoTime();
        byte[] text = NativeBindings.call(function, frame, slots);
        ends[number] = System.nanoTime();
        count = number + 1;
        return text;
    }

    private static Mark mark() {
        long all = 0;
        for (long bytes : THREADS.getThreadAllocatedBytes(THREADS.getAllThreadIds())) all += Math.max(bytes, 0);
        long own = THREADS.getThreadAllocatedBytes(Thread.currentThread().getId());
        return new Mark(System.nanoTime(), own, all);
    }
}
