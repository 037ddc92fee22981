package android.content.pm;

import java.util.Map;

/** What the system knows of an installed app. */
public class ApplicationInfo extends PackageItemInfo {
    public static final int FLAG_DEBUGGABLE = 1 << 1;

    public int flags;
    public String className;
    public String processName;
    public String sourceDir;
    public String publicSourceDir;
    public String nativeLibraryDir;
    public String dataDir;
    public int uid;
    public int targetSdkVersion;

    public ApplicationInfo() {}

    /** From the facts that the activity manager sends; not part of Android. */
    public ApplicationInfo(Map<String, String> facts) {
        packageName = facts.get("package");
        processName = packageName;
        className = facts.get("application").isEmpty() ? null : facts.get("application");
        name = className;
        sourceDir = facts.get("sourceDir");
        publicSourceDir = sourceDir;
        nativeLibraryDir = facts.get("nativeLibraryDir");
        dataDir = facts.get("dataDir");
        uid = Integer.parseInt(facts.get("uid"));
        targetSdkVersion = Integer.parseInt(facts.get("targetSdkVersion"));
        flags = Boolean.parseBoolean(facts.get("debuggable")) ? FLAG_DEBUGGABLE : 0;
    }
}
