package android.content.pm;

import java.util.Map;

/** What the system knows of an installed package. */
public class PackageInfo {
    public String packageName;
    public String versionName;
    public int versionCode;
    public ApplicationInfo applicationInfo;

    public PackageInfo() {}

    /** From the facts that the activity manager sends; not part of Android. */
    public PackageInfo(ApplicationInfo info, Map<String, String> facts) {
        packageName = info.packageName;
        versionName = facts.get("versionName");
        versionCode = Integer.parseInt(facts.get("versionCode"));
        applicationInfo = info;
    }

    public long getLongVersionCode() {
        return versionCode;
    }
}
