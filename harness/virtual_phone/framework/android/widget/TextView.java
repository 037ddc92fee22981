package android.widget;

import android.content.Context;
import android.view.View;

/** A text on the screen. */
public class TextView extends View {
    private CharSequence text = "";
    private CharSequence hint;
    private boolean selectable;

    public TextView(Context context) {
        super(context);
    }

    public CharSequence getText() {
        return text;
    }

    public final void setText(CharSequence text) {
        replaceText(text == null ? "" : text);
    }

    public final void append(CharSequence more) {
        replaceText(text.toString() + more);
    }

    /** How a kind of view keeps its text; not part of Android. */
    void replaceText(CharSequence text) {
        this.text = text;
    }

    public int length() {
        return text.length();
    }

    public CharSequence getHint() {
        return hint;
    }

    public final void setHint(CharSequence hint) {
        this.hint = hint;
    }

    public boolean isTextSelectable() {
        return selectable;
    }

    public void setTextIsSelectable(boolean selectable) {
        this.selectable = selectable;
    }
}
