package android.text;

/** Text that changes in place. */
public interface Editable extends CharSequence, Appendable {
    @Override
    Editable append(CharSequence text);

    @Override
    Editable append(CharSequence text, int start, int end);

    @Override
    Editable append(char text);

    Editable replace(int start, int end, CharSequence text);

    void clear();
}
