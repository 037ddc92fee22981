import com.googlecode.d2j.dex.Dex2jar;
import com.googlecode.d2j.reader.BaseDexFileReader;
import com.googlecode.d2j.reader.MultiDexFileReader;

import java.nio.file.Files;
import java.nio.file.Path;

/** TranslateDex IN.apk OUT.jar: every classes*.dex of an APK as JVM bytecode with stack maps. */
public final class TranslateDex {
    private TranslateDex() {}

    public static void main(String[] arguments) throws Exception {
        byte[] apk = Files.readAllBytes(Path.of(arguments[0]));
        BaseDexFileReader reader = MultiDexFileReader.open(apk);
        // Without computed frames the verifier of any JVM since 7 rejects the classes.
        Dex2jar.from(reader)
                .topoLogicalSort()
                .computeFrames(true)
                .withExceptionHandler(new Strict())
                .to(Path.of(arguments[1]));
    }

    /** A class that cannot be translated must fail the installation, not the app's first call. */
    private static final class Strict implements com.googlecode.d2j.dex.DexExceptionHandler {
        @Override
        public void handleFileException(Exception problem) {
            throw new IllegalStateException(problem);
        }

        @Override
        public void handleMethodTranslateException(
                com.googlecode.d2j.Method method,
                com.googlecode.d2j.node.DexMethodNode node,
                org.objectweb.asm.MethodVisitor visitor,
                Exception problem) {
            throw new IllegalStateException(method.toString(), problem);
        }
    }
}
