package android.os;

/** Sends messages to a looper and handles them there. */
public class Handler {
    private final Looper looper;
    private final Callback callback;

    /** Handles messages without a subclass. */
    public interface Callback {
        boolean handleMessage(Message message);
    }

    @Deprecated
    public Handler() {
        this(Looper.myLooper(), null);
    }

    public Handler(Looper looper) {
        this(looper, null);
    }

    public Handler(Looper looper, Callback callback) {
        if (looper == null) {
            throw new RuntimeException("Can't create handler inside a thread without a Looper");
        }
        this.looper = looper;
        this.callback = callback;
    }

    public void handleMessage(Message message) {}

    public void dispatchMessage(Message message) {
        if (message.callback != null) {
            message.callback.run();
        } else if (callback == null || !callback.handleMessage(message)) {
            handleMessage(message);
        }
    }

    public final Looper getLooper() {
        return looper;
    }

    public final Message obtainMessage(int what) {
        return Message.obtain(this, what);
    }

    public final Message obtainMessage(int what, Object obj) {
        return Message.obtain(this, what, obj);
    }

    public final boolean post(Runnable work) {
        return postDelayed(work, 0);
    }

    public final boolean postDelayed(Runnable work, long delayMillis) {
        return postDelayed(work, null, delayMillis);
    }

    public final boolean postDelayed(Runnable work, Object token, long delayMillis) {
        Message message = new Message();
        message.callback = work;
        message.token = token;
        return sendMessageDelayed(message, delayMillis);
    }

    public final boolean sendEmptyMessage(int what) {
        return sendMessage(obtainMessage(what));
    }

    public final boolean sendMessage(Message message) {
        return sendMessageDelayed(message, 0);
    }

    public final boolean sendMessageDelayed(Message message, long delayMillis) {
        message.target = this;
        message.when = SystemClock.uptimeMillis() + Math.max(0, delayMillis);
        return looper.getQueue().add(message);
    }

    public final void removeCallbacks(Runnable work) {
        looper.getQueue().remove(m -> m.target == this && m.callback == work);
    }

    public final void removeMessages(int what) {
        looper.getQueue().remove(m -> m.target == this && m.callback == null && m.what == what);
    }

    public final void removeCallbacksAndMessages(Object token) {
        looper.getQueue().remove(m -> m.target == this
                && (token == null || m.token == token || m.obj == token));
    }

    public final boolean hasMessages(int what) {
        return looper.getQueue().has(m -> m.target == this && m.callback == null && m.what == what);
    }
}
