package android.widget;

import android.content.Context;
import android.view.View;

/** A view through which a larger one is seen. */
public class ScrollView extends FrameLayout {
    public ScrollView(Context context) {
        super(context);
    }

    @Override
    public void addView(View child) {
        if (getChildCount() > 0) {
            throw new IllegalStateException("ScrollView can host only one direct child");
        }
        super.addView(child);
    }

    public boolean fullScroll(int direction) {
        return false;
    }
}
