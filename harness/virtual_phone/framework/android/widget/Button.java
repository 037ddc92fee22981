package android.widget;

import android.content.Context;

/** A text to press. */
public class Button extends TextView {
    public Button(Context context) {
        super(context);
    }
}
