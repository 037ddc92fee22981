package android.content.pm;

/** The installed packages, as far as an app of this phone may see them: itself. */
public class PackageManager {
    private final PackageInfo own;

    /** Not part of Android, where the class is abstract. */
    public PackageManager(PackageInfo own) {
        this.own = own;
    }

    public PackageInfo getPackageInfo(String packageName, int flags) throws NameNotFoundException {
        if (!own.packageName.equals(packageName)) {
            throw new NameNotFoundException(packageName);
        }
        return own;
    }

    public ApplicationInfo getApplicationInfo(String packageName, int flags)
            throws NameNotFoundException {
        return getPackageInfo(packageName, flags).applicationInfo;
    }

    public boolean hasSystemFeature(String name) {
        return false;
    }

    /** A package that is not there. */
    public static class NameNotFoundException extends Exception {
        public NameNotFoundException() {}

        public NameNotFoundException(String name) {
            super(name);
        }
    }
}
