package dev.probe;

import android.app.Application;
import android.util.Log;

public class ProbeApplication extends Application {
    static boolean created;

    @Override
    public void onCreate() {
        created = true;
        Log.i("Probe", "application created");
    }
}
