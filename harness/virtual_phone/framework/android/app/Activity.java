package android.app;

import android.content.Context;
import android.content.ContextWrapper;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;

/** A screen. Nothing is drawn; what an activity does to its views can be seen by the app only. */
public class Activity extends ContextWrapper {
    private final Handler handler = new Handler(Looper.getMainLooper());
    private Application application;

    public Activity() {
        super(null);
    }

    final void attach(Application application, Instrumentation instrumentation) {
        this.application = application;
        attachBaseContext(application.getBaseContext());
    }

    final void performStart() {
        onStart();
    }

    final void performResume() {
        onResume();
    }

    @Override
    protected void attachBaseContext(Context base) {
        super.attachBaseContext(base);
    }

    protected void onCreate(Bundle state) {}

    protected void onStart() {}

    protected void onResume() {}

    protected void onPause() {}

    protected void onStop() {}

    protected void onDestroy() {}

    public final Application getApplication() {
        return application;
    }

    public final void runOnUiThread(Runnable work) {
        if (Looper.myLooper() == Looper.getMainLooper()) {
            work.run();
        } else {
            handler.post(work);
        }
    }

    public void finish() {
        runOnUiThread(() -> {
            onPause();
            onStop();
            onDestroy();
        });
    }
}
