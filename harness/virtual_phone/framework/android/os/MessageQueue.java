package android.os;

import java.util.Comparator;
import java.util.PriorityQueue;
import java.util.function.Predicate;

/** Messages of one looper by their time, those of one time in the order they came. */
public final class MessageQueue {
    private final PriorityQueue<Message> messages = new PriorityQueue<>(
            Comparator.<Message>comparingLong(m -> m.when).thenComparingLong(m -> m.order));
    private long sent;
    private boolean quitting;

    MessageQueue() {}

    synchronized boolean add(Message message) {
        if (quitting) {
            return false;
        }
        message.order = sent++;
        messages.add(message);
        notifyAll();
        return true;
    }

    /** The next message that is due, null when the queue has ended. */
    synchronized Message next() throws InterruptedException {
        while (true) {
            if (quitting) {
                return null;
            }
            Message first = messages.peek();
            long wait = first == null ? 0 : first.when - SystemClock.uptimeMillis();
            if (first != null && wait <= 0) {
                return messages.poll();
            }
            wait(wait);
        }
    }

    synchronized void remove(Predicate<Message> which) {
        messages.removeIf(which);
    }

    synchronized boolean has(Predicate<Message> which) {
        return messages.stream().anyMatch(which);
    }

    synchronized void quit() {
        quitting = true;
        messages.clear();
        notifyAll();
    }

    public synchronized boolean isIdle() {
        Message first = messages.peek();
        return first == null || first.when > SystemClock.uptimeMillis();
    }
}
