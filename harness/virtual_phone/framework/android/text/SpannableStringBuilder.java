package android.text;

/** Text that changes in place; spans, which only a screen shows, there are none. */
public class SpannableStringBuilder implements Editable {
    private final StringBuilder text = new StringBuilder();

    public SpannableStringBuilder() {}

    public SpannableStringBuilder(CharSequence text) {
        this.text.append(text);
    }

    @Override
    public SpannableStringBuilder append(CharSequence more) {
        text.append(more);
        return this;
    }

    @Override
    public SpannableStringBuilder append(CharSequence more, int start, int end) {
        text.append(more, start, end);
        return this;
    }

    @Override
    public SpannableStringBuilder append(char more) {
        text.append(more);
        return this;
    }

    @Override
    public SpannableStringBuilder replace(int start, int end, CharSequence by) {
        text.replace(start, end, by.toString());
        return this;
    }

    @Override
    public void clear() {
        text.setLength(0);
    }

    @Override
    public int length() {
        return text.length();
    }

    @Override
    public char charAt(int index) {
        return text.charAt(index);
    }

    @Override
    public CharSequence subSequence(int start, int end) {
        return text.subSequence(start, end);
    }

    @Override
    public String toString() {
        return text.toString();
    }
}
