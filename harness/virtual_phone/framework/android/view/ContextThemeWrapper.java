package android.view;

import android.content.Context;
import android.content.ContextWrapper;

/** A context with a theme; themes, which only a screen shows, are not kept. */
public class ContextThemeWrapper extends ContextWrapper {
    public ContextThemeWrapper() {
        super(null);
    }

    @Override
    protected void attachBaseContext(Context base) {
        super.attachBaseContext(base);
    }
}
