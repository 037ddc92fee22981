import com.android.apksig.ApkSigner;
import com.android.apksig.ApkVerifier;
import com.android.apksig.KeyConfig;
import com.android.apksig.apk.ApkFormatException;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.HexFormat;
import java.util.List;

/**
 * A command line for the apksig library, which has none of its own.
 *
 * <p>{@code sign KEYSTORE ALIAS PASSWORD IN OUT MIN_SDK} writes OUT with signatures of schemes 2
 * and 3; entries keep their alignment. {@code verify APK} prints "scheme N" for each scheme that
 * holds and "certificate SHA256" for each signer, or "error TEXT" lines and exits with 1.
 */
public final class Apksig {
    private static final int BROKEN = 1;
    private static final int PAGE_BYTES = 16384;

    private Apksig() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 7 && arguments[0].equals("sign")) {
            sign(
                    new File(arguments[1]),
                    arguments[2],
                    arguments[3].toCharArray(),
                    new File(arguments[4]),
                    new File(arguments[5]),
                    Integer.parseInt(arguments[6]));
        } else if (arguments.length == 2 && arguments[0].equals("verify")) {
            System.exit(verify(new File(arguments[1])));
        } else {
            throw new IllegalArgumentException("sign or verify, see the comment above");
        }
    }

    private static void sign(
            File store, String alias, char[] password, File input, File output, int minSdk)
            throws Exception {
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (InputStream stream = new FileInputStream(store)) {
            keys.load(stream, password);
        }
        PrivateKey key = (PrivateKey) keys.getKey(alias, password);
        X509Certificate certificate = (X509Certificate) keys.getCertificate(alias);
        ApkSigner.SignerConfig signer =
                new ApkSigner.SignerConfig.Builder(
                                "harness", new KeyConfig.Jca(key), List.of(certificate))
                        .build();
        new ApkSigner.Builder(List.of(signer))
                .setInputApk(input)
                .setOutputApk(output)
                .setMinSdkVersion(minSdk)
                .setV1SigningEnabled(false)
                .setV2SigningEnabled(true)
                .setV3SigningEnabled(true)
                .setV4SigningEnabled(false)
                .setAlignmentPreserved(true)
                .setLibraryPageAlignmentBytes(PAGE_BYTES)
                .setCreatedBy("harness")
                .build()
                .sign();
    }

    private static int verify(File apk) throws Exception {
        ApkVerifier.Result result;
        try {
            result = new ApkVerifier.Builder(apk).build().verify();
        } catch (ApkFormatException | IOException | RuntimeException malformed) {
            // The library's parsers meet hostile bytes here; whatever they throw, it is no APK.
            System.out.println("error " + oneLine(String.valueOf(malformed.getMessage())));
            return BROKEN;
        }
        if (!result.isVerified()) {
            for (ApkVerifier.IssueWithParams issue : result.getAllErrors()) {
                System.out.println("error " + oneLine(issue.toString()));
            }
            return BROKEN;
        }
        printScheme(1, result.isVerifiedUsingV1Scheme());
        printScheme(2, result.isVerifiedUsingV2Scheme());
        printScheme(3, result.isVerifiedUsingV3Scheme());
        MessageDigest sha256 = MessageDigest.getInstance("SHA-256");
        for (X509Certificate certificate : result.getSignerCertificates()) {
            byte[] digest = sha256.digest(certificate.getEncoded());
            System.out.println("certificate " + HexFormat.of().formatHex(digest));
        }
        return 0;
    }

    private static void printScheme(int number, boolean holds) {
        if (holds) {
            System.out.println("scheme " + number);
        }
    }

    private static String oneLine(String text) {
        return text.replaceAll("\\s+", " ").strip();
    }
}
