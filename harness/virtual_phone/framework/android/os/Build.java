package android.os;

/** What the phone is. */
public class Build {
    public static final String BOARD = SystemProperties.get("ro.board.platform");
    public static final String BRAND = SystemProperties.get("ro.product.brand");
    public static final String DEVICE = SystemProperties.get("ro.product.device");
    public static final String DISPLAY = SystemProperties.get("ro.build.display.id");
    public static final String FINGERPRINT = SystemProperties.get("ro.build.fingerprint");
    public static final String HARDWARE = SystemProperties.get("ro.hardware");
    public static final String ID = SystemProperties.get("ro.build.id");
    public static final String MANUFACTURER = SystemProperties.get("ro.product.manufacturer");
    public static final String MODEL = SystemProperties.get("ro.product.model");
    public static final String PRODUCT = SystemProperties.get("ro.product.name");
    public static final String TAGS = SystemProperties.get("ro.build.tags");
    public static final String TYPE = SystemProperties.get("ro.build.type");

    @Deprecated public static final String CPU_ABI = SystemProperties.get("ro.product.cpu.abi");

    public static final String[] SUPPORTED_ABIS = {SystemProperties.get("ro.product.cpu.abi")};
    public static final String[] SUPPORTED_32_BIT_ABIS = {};
    public static final String[] SUPPORTED_64_BIT_ABIS = SUPPORTED_ABIS.clone();

    public Build() {}

    /** The phone's Android. */
    public static class VERSION {
        public static final String CODENAME = SystemProperties.get("ro.build.version.codename");
        public static final String INCREMENTAL =
                SystemProperties.get("ro.build.version.incremental");
        public static final String RELEASE = SystemProperties.get("ro.build.version.release");
        public static final int SDK_INT =
                Integer.parseInt(SystemProperties.get("ro.build.version.sdk"));

        public VERSION() {}
    }

    /** Names of API levels; compilers copy their values. */
    public static class VERSION_CODES {
        public static final int O = 26;
        public static final int P = 28;
        public static final int Q = 29;
        public static final int R = 30;

        public VERSION_CODES() {}
    }
}
