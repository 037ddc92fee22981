import com.googlecode.d2j.Method;
import com.googlecode.d2j.dex.Dex2jar;
import com.googlecode.d2j.dex.DexExceptionHandler;
import com.googlecode.d2j.node.DexMethodNode;
import com.googlecode.d2j.reader.MultiDexFileReader;

import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/**
 * TranslateDex IN.apk OUT.jar: every classes*.dex of an APK as JVM bytecode with stack maps.
 *
 * <p>dex2jar does it, but for one thing: dex does not say whether the class of a called method is
 * an interface, a JVM wants to know, and dex2jar guesses "no" for static and super calls.
 */
public final class TranslateDex {
    private TranslateDex() {}

    public static void main(String[] arguments) throws Exception {
        Path raw = Path.of(arguments[1] + ".raw");
        // Without computed frames the verifier of any JVM since 7 rejects the classes.
        Dex2jar.from(MultiDexFileReader.open(Files.readAllBytes(Path.of(arguments[0]))))
                .topoLogicalSort()
                .computeFrames(true)
                .withExceptionHandler(new Strict())
                .to(raw);
        write(Path.of(arguments[1]), withInterfacesNamed(read(raw)));
    }

    private static Map<String, byte[]> withInterfacesNamed(Map<String, byte[]> classes) {
        Interfaces interfaces = new Interfaces(classes);
        Map<String, byte[]> named = new TreeMap<>();
        classes.forEach((name, bytes) -> {
            ClassReader reader = new ClassReader(bytes);
            ClassWriter writer = new ClassWriter(0);
            reader.accept(new CallFixer(writer, interfaces), 0);
            named.put(name, writer.toByteArray());
        });
        return named;
    }

    private static Map<String, byte[]> read(Path jar) throws Exception {
        Map<String, byte[]> classes = new TreeMap<>();
        try (ZipFile archive = new ZipFile(jar.toFile())) {
            for (ZipEntry entry : (Iterable<ZipEntry>) archive.stream().map(e -> (ZipEntry) e)::iterator) {
                if (entry.getName().endsWith(".class")) {
                    classes.put(entry.getName(), archive.getInputStream(entry).readAllBytes());
                }
            }
        }
        return classes;
    }

    private static void write(Path jar, Map<String, byte[]> classes) throws Exception {
        try (ZipOutputStream archive = new ZipOutputStream(Files.newOutputStream(jar))) {
            // Stored: a JVM that starts for seconds only should not spend them on inflating.
            archive.setLevel(0);
            for (Map.Entry<String, byte[]> each : classes.entrySet()) {
                archive.putNextEntry(new ZipEntry(each.getKey()));
                archive.write(each.getValue());
                archive.closeEntry();
            }
        }
    }

    /** Knows of each class whether it is an interface: the APK's own, else the JDK's. */
    private static final class Interfaces {
        private final Map<String, Boolean> known = new HashMap<>();

        Interfaces(Map<String, byte[]> classes) {
            classes.values().forEach(bytes -> {
                ClassReader reader = new ClassReader(bytes);
                boolean isInterface = (reader.getAccess() & Opcodes.ACC_INTERFACE) != 0;
                known.put(reader.getClassName(), isInterface);
            });
        }

        boolean contain(String name) {
            return known.computeIfAbsent(name, Interfaces::isOfThePlatform);
        }

        private static boolean isOfThePlatform(String name) {
            try {
                String dotted = name.replace('/', '.');
                return Class.forName(dotted, false, ClassLoader.getPlatformClassLoader()).isInterface();
            } catch (ClassNotFoundException notThere) {
                return false; // of Android, whose interfaces are called through their objects
            }
        }
    }

    private static final class CallFixer extends ClassVisitor {
        private final Interfaces interfaces;

        CallFixer(ClassVisitor next, Interfaces interfaces) {
            super(Opcodes.ASM9, next);
            this.interfaces = interfaces;
        }

        @Override
        public MethodVisitor visitMethod(
                int access, String name, String type, String signature, String[] exceptions) {
            MethodVisitor next = super.visitMethod(access, name, type, signature, exceptions);
            return new MethodVisitor(Opcodes.ASM9, next) {
                @Override
                public void visitMethodInsn(
                        int opcode, String owner, String name, String type, boolean isInterface) {
                    boolean fixed = isInterface
                            || (opcode != Opcodes.INVOKEVIRTUAL && interfaces.contain(owner));
                    super.visitMethodInsn(opcode, owner, name, type, fixed);
                }
            };
        }
    }

    /** A class that cannot be translated must fail the installation, not the app's first call. */
    private static final class Strict implements DexExceptionHandler {
        @Override
        public void handleFileException(Exception problem) {
            throw new IllegalStateException(problem);
        }

        @Override
        public void handleMethodTranslateException(
                Method method, DexMethodNode node, MethodVisitor visitor, Exception problem) {
            throw new IllegalStateException(method.toString(), problem);
        }
    }
}
