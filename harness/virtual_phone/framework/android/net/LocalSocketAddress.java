package android.net;

/** The name of a local socket; the phone has Linux's abstract ones. */
public class LocalSocketAddress {
    /** Where a name is looked up. */
    public enum Namespace {
        ABSTRACT
    }

    private final String name;

    public LocalSocketAddress(String name) {
        this.name = name;
    }

    public String getName() {
        return name;
    }

    public Namespace getNamespace() {
        return Namespace.ABSTRACT;
    }
}
