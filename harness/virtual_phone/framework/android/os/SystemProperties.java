package android.os;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** The phone's properties as they were at boot. Hidden in Android; {@link Build} reads them. */
final class SystemProperties {
    private static final Map<String, String> VALUES = read();

    private SystemProperties() {}

    static String get(String name) {
        return VALUES.getOrDefault(name, "");
    }

    private static Map<String, String> read() {
        Map<String, String> values = new HashMap<>();
        try {
            Path file = Path.of("/system/build.prop");
            for (String line : Files.readAllLines(file, StandardCharsets.UTF_8)) {
                int equals = line.indexOf('=');
                if (equals > 0) {
                    values.put(line.substring(0, equals), line.substring(equals + 1));
                }
            }
        } catch (IOException problem) {
            throw new IllegalStateException("the phone has no build.prop", problem);
        }
        return values;
    }
}
