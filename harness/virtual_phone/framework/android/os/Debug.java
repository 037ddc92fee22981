package android.os;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** What the kernel says of this process's memory. Sizes are in KiB. */
public final class Debug {
    private Debug() {}

    public static long getPss() {
        return rollup().getOrDefault("Pss", 0);
    }

    public static long getNativeHeapAllocatedSize() {
        return rollup().getOrDefault("Private_Dirty", 0) * 1024L;
    }

    public static void getMemoryInfo(MemoryInfo info) {
        Map<String, Integer> rows = rollup();
        info.otherPss = rows.getOrDefault("Pss", 0);
        info.otherPrivateDirty = rows.getOrDefault("Private_Dirty", 0);
        info.otherSharedDirty = rows.getOrDefault("Shared_Dirty", 0);
    }

    public static boolean isDebuggerConnected() {
        return false;
    }

    private static Map<String, Integer> rollup() {
        Map<String, Integer> rows = new HashMap<>();
        try {
            Path file = Path.of("/proc/self/smaps_rollup");
            for (String line : Files.readAllLines(file, StandardCharsets.US_ASCII)) {
                String[] words = line.split("\\s+");
                if (words.length == 3 && words[2].equals("kB")) {
                    rows.put(words[0].replace(":", ""), Integer.parseInt(words[1]));
                }
            }
        } catch (IOException problem) {
            throw new IllegalStateException("the kernel does not tell memory use", problem);
        }
        return rows;
    }

    /** Memory by kind; without Dalvik everything is of the kind "other". */
    public static class MemoryInfo implements Parcelable {
        public int dalvikPss;
        public int dalvikPrivateDirty;
        public int dalvikSharedDirty;
        public int nativePss;
        public int nativePrivateDirty;
        public int nativeSharedDirty;
        public int otherPss;
        public int otherPrivateDirty;
        public int otherSharedDirty;

        public MemoryInfo() {}

        public int getTotalPss() {
            return dalvikPss + nativePss + otherPss;
        }

        public int getTotalPrivateDirty() {
            return dalvikPrivateDirty + nativePrivateDirty + otherPrivateDirty;
        }

        public int getTotalSharedDirty() {
            return dalvikSharedDirty + nativeSharedDirty + otherSharedDirty;
        }

        public String getMemoryStat(String name) {
            return name.equals("summary.total-pss") ? Integer.toString(getTotalPss()) : null;
        }
    }
}
