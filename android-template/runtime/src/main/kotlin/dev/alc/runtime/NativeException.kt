package dev.alc.runtime

/**
 * An error that native code reported.
 *
 * @property kind TVM's own word for it (`ValueError`, `InternalError`, ...), `SystemError` for a
 *   refused system call, or `ArgumentError` for a call that the binding itself refused.
 * @property detail the native message, without the kind.
 * @property backtrace where it was raised; may be empty.
 */
public class NativeException internal constructor(
    public val kind: String,
    public val detail: String,
    public val backtrace: String,
) : RuntimeException("$kind: $detail") {
    /** What the native code calls, with texts in UTF-8. */
    @Suppress("unused")
    internal constructor(kind: ByteArray, detail: ByteArray, backtrace: ByteArray) :
        this(String(kind), String(detail), String(backtrace))
}
