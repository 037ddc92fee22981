package android.os;

/** A piece of work for a handler. */
public final class Message {
    public int what;
    public int arg1;
    public int arg2;
    public Object obj;

    long when;
    long order;
    Handler target;
    Runnable callback;
    Object token;

    public Message() {}

    public static Message obtain() {
        return new Message();
    }

    public static Message obtain(Handler handler, int what) {
        Message message = new Message();
        message.target = handler;
        message.what = what;
        return message;
    }

    public static Message obtain(Handler handler, int what, Object obj) {
        Message message = obtain(handler, what);
        message.obj = obj;
        return message;
    }

    public Handler getTarget() {
        return target;
    }

    public Runnable getCallback() {
        return callback;
    }

    public long getWhen() {
        return when;
    }

    public void sendToTarget() {
        target.sendMessage(this);
    }
}
