package android.app;

import android.content.Context;
import android.content.pm.ApplicationInfo;
import android.content.pm.PackageInfo;
import android.content.pm.PackageManager;
import android.os.Looper;

import java.io.File;
import java.util.Map;

/** The context that stands on the phone's own folders and services. */
final class ContextImpl extends Context {
    private static final String SHARED = "/storage/emulated/0/Android";

    private final ApplicationInfo info;
    private final ClassLoader loader;
    private final PackageInfo packageInfo;
    private Application application;

    ContextImpl(ApplicationInfo info, ClassLoader loader, Map<String, String> facts) {
        this.info = info;
        this.loader = loader;
        this.packageInfo = new PackageInfo(info, facts);
    }

    void setApplication(Application application) {
        this.application = application;
    }

    @Override
    public PackageManager getPackageManager() {
        return new PackageManager(packageInfo);
    }

    @Override
    public Looper getMainLooper() {
        return Looper.getMainLooper();
    }

    @Override
    public Context getApplicationContext() {
        return application;
    }

    @Override
    public ClassLoader getClassLoader() {
        return loader;
    }

    @Override
    public String getPackageName() {
        return info.packageName;
    }

    @Override
    public ApplicationInfo getApplicationInfo() {
        return info;
    }

    @Override
    public String getPackageCodePath() {
        return info.sourceDir;
    }

    @Override
    public File getDataDir() {
        return new File(info.dataDir);
    }

    @Override
    public File getFilesDir() {
        return made(new File(info.dataDir, "files"));
    }

    @Override
    public File getCacheDir() {
        return made(new File(info.dataDir, "cache"));
    }

    @Override
    public File getCodeCacheDir() {
        return made(new File(info.dataDir, "code_cache"));
    }

    @Override
    public File getNoBackupFilesDir() {
        return made(new File(info.dataDir, "no_backup"));
    }

    @Override
    public File getExternalFilesDir(String type) {
        File folder = new File(SHARED + "/data/" + info.packageName, "files");
        return made(type == null ? folder : new File(folder, type));
    }

    @Override
    public File getExternalCacheDir() {
        return made(new File(SHARED + "/data/" + info.packageName, "cache"));
    }

    @Override
    public File[] getExternalMediaDirs() {
        return new File[] {made(new File(SHARED + "/media", info.packageName))};
    }

    @Override
    public Object getSystemService(String name) {
        return ACTIVITY_SERVICE.equals(name) ? new ActivityManager() : null;
    }

    private static File made(File folder) {
        folder.mkdirs();
        return folder;
    }
}
