package android.widget;

import android.content.Context;
import android.text.Editable;
import android.text.SpannableStringBuilder;

/** A text that its user changes. */
public class EditText extends TextView {
    public EditText(Context context) {
        super(context);
        replaceText("");
    }

    @Override
    public Editable getText() {
        return (Editable) super.getText();
    }

    @Override
    void replaceText(CharSequence text) {
        super.replaceText(new SpannableStringBuilder(text));
    }
}
