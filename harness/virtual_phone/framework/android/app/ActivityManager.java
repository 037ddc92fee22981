package android.app;

import android.os.Parcelable;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** What an app may ask about the phone's memory. */
public class ActivityManager {
    private static final long THRESHOLD = 128L << 20;

    ActivityManager() {}

    public void getMemoryInfo(MemoryInfo info) {
        info.totalMem = meminfo("MemTotal");
        info.availMem = meminfo("MemAvailable");
        info.threshold = THRESHOLD;
        info.lowMemory = info.availMem < THRESHOLD;
    }

    public int getMemoryClass() {
        return (int) (Runtime.getRuntime().maxMemory() >> 20);
    }

    public int getLargeMemoryClass() {
        return getMemoryClass();
    }

    public boolean isLowRamDevice() {
        return meminfo("MemTotal") <= 1L << 30;
    }

    private static long meminfo(String name) {
        try {
            Path file = Path.of("/proc/meminfo");
            for (String line : Files.readAllLines(file, StandardCharsets.US_ASCII)) {
                String[] words = line.split("\\s+");
                if (words[0].equals(name + ":")) {
                    return Long.parseLong(words[1]) << 10;
                }
            }
        } catch (IOException problem) {
            throw new IllegalStateException("the kernel does not tell memory use", problem);
        }
        return 0;
    }

    /** The phone's memory in bytes. */
    public static class MemoryInfo implements Parcelable {
        public long availMem;
        public long totalMem;
        public long threshold;
        public boolean lowMemory;

        public MemoryInfo() {}
    }
}
