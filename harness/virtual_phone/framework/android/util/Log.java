package android.util;

public final class Log {
    private Log() {}
}
