package android.app;

import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.view.ContextThemeWrapper;
import android.view.View;

/** A screen. Nothing is drawn; what an activity does to its views can be seen by the app only. */
public class Activity extends ContextThemeWrapper {
    public static final int RESULT_CANCELED = 0;
    public static final int RESULT_OK = -1;
    public static final int RESULT_FIRST_USER = 1;

    private final Handler handler = new Handler(Looper.getMainLooper());
    private Application application;
    private Intent intent;
    /** Kept, so that the views live as long as the screen. */
    private View content;

    public Activity() {}

    final void attach(Application application, Intent intent) {
        this.application = application;
        this.intent = intent;
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

    public void onLowMemory() {}

    public void onTrimMemory(int level) {}

    public final Application getApplication() {
        return application;
    }

    public Intent getIntent() {
        return intent;
    }

    public void setIntent(Intent intent) {
        this.intent = intent;
    }

    public void setContentView(View view) {
        content = view;
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
