package android.content;

/** The name of a part of an app: its package and its class. */
public final class ComponentName {
    private final String packageName;
    private final String className;

    public ComponentName(String packageName, String className) {
        this.packageName = packageName;
        this.className = className;
    }

    public String getPackageName() {
        return packageName;
    }

    public String getClassName() {
        return className;
    }

    public String flattenToString() {
        return packageName + "/" + className;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof ComponentName
                && flattenToString().equals(((ComponentName) other).flattenToString());
    }

    @Override
    public int hashCode() {
        return flattenToString().hashCode();
    }

    @Override
    public String toString() {
        return "ComponentInfo{" + flattenToString() + "}";
    }
}
