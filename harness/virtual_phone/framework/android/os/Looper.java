package android.os;

/** A thread that works off messages. */
public final class Looper {
    private static final ThreadLocal<Looper> OF_THREAD = new ThreadLocal<>();
    private static volatile Looper main;

    private final MessageQueue queue = new MessageQueue();
    private final Thread thread = Thread.currentThread();

    private Looper() {}

    public static void prepare() {
        if (OF_THREAD.get() != null) {
            throw new RuntimeException("Only one Looper may be created per thread");
        }
        OF_THREAD.set(new Looper());
    }

    public static void prepareMainLooper() {
        prepare();
        main = OF_THREAD.get();
    }

    public static Looper getMainLooper() {
        return main;
    }

    public static Looper myLooper() {
        return OF_THREAD.get();
    }

    public static void loop() {
        Looper looper = myLooper();
        if (looper == null) {
            throw new RuntimeException("No Looper; Looper.prepare() wasn't called on this thread.");
        }
        try {
            for (Message m = looper.queue.next(); m != null; m = looper.queue.next()) {
                m.target.dispatchMessage(m);
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    public Thread getThread() {
        return thread;
    }

    public MessageQueue getQueue() {
        return queue;
    }

    public boolean isCurrentThread() {
        return Thread.currentThread() == thread;
    }

    public void quit() {
        queue.quit();
    }

    public void quitSafely() {
        queue.quit();
    }
}
