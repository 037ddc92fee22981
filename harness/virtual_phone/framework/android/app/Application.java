package android.app;

import android.content.Context;
import android.content.ContextWrapper;

/** The state that an app's process holds for all its parts. */
public class Application extends ContextWrapper {
    public Application() {
        super(null);
    }

    public void onCreate() {}

    public void onTerminate() {}

    public void onLowMemory() {}

    public void onTrimMemory(int level) {}

    @Override
    protected void attachBaseContext(Context base) {
        super.attachBaseContext(base);
    }
}
