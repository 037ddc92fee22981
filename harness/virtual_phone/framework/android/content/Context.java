package android.content;

import android.content.pm.ApplicationInfo;
import android.content.pm.PackageManager;
import android.os.Looper;

import java.io.File;

/** An app's door to the phone. */
public abstract class Context {
    public static final String ACTIVITY_SERVICE = "activity";
    public static final int MODE_PRIVATE = 0;

    public abstract PackageManager getPackageManager();

    public abstract Looper getMainLooper();

    public abstract Context getApplicationContext();

    public abstract ClassLoader getClassLoader();

    public abstract String getPackageName();

    public abstract ApplicationInfo getApplicationInfo();

    public abstract String getPackageCodePath();

    public abstract File getDataDir();

    public abstract File getFilesDir();

    public abstract File getCacheDir();

    public abstract File getCodeCacheDir();

    public abstract File getNoBackupFilesDir();

    public abstract File getExternalFilesDir(String type);

    public abstract File getExternalCacheDir();

    public abstract File[] getExternalMediaDirs();

    public abstract Object getSystemService(String name);

    @SuppressWarnings("unchecked")
    public final <T> T getSystemService(Class<T> kind) {
        return kind == android.app.ActivityManager.class
                ? (T) getSystemService(ACTIVITY_SERVICE)
                : null;
    }
}
