package dev.probe;

import android.app.Activity;
import android.os.Bundle;
import android.util.Log;

public class ProbeActivity extends Activity {
    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        Log.i("Probe", "activity created on " + Thread.currentThread().getName());
    }

    @Override
    protected void onResume() {
        super.onResume();
        Log.i("Probe", "activity resumed");
    }
}
