package android.content.pm;

/** What all parts of a package have. */
public class PackageItemInfo {
    public String name;
    public String packageName;
}
