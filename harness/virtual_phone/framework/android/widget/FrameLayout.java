package android.widget;

import android.content.Context;
import android.view.ViewGroup;

/** Views on top of each other. */
public class FrameLayout extends ViewGroup {
    public FrameLayout(Context context) {
        super(context);
    }
}
