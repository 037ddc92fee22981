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

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;

/**
 * TranslateDex IN.apk FRAMEWORK.jar OUT.jar: every classes*.dex of an APK as JVM bytecode.
 *
 * <p>dex2jar does it, but for two things. Dex does not say whether the class of a called method is
 * an interface, a JVM wants to know, and dex2jar guesses "no" for static and super calls. And the
 * stack maps, without which no JVM since version 7 takes a class, need to know which classes
 * extend which; dex2jar guesses there as well, and sometimes names classes that do not exist. Here
 * both are done from the APK, the phone's framework and the JDK.
 */
public final class TranslateDex {
    private TranslateDex() {}

    public static void main(String[] arguments) throws Exception {
        Path raw = Path.of(arguments[2] + ".raw");
        Dex2jar.from(MultiDexFileReader.open(Files.readAllBytes(Path.of(arguments[0]))))
                .topoLogicalSort()
                .computeFrames(false)
                .withExceptionHandler(new Strict())
                .to(raw);
        Map<String, byte[]> classes = read(raw);
        Hierarchy hierarchy = new Hierarchy(classes.values(), Path.of(arguments[1]));
        classes.replaceAll((name, bytes) -> completed(bytes, hierarchy));
        write(Path.of(arguments[2]), classes);
    }

    private static byte[] completed(byte[] bytes, Hierarchy hierarchy) {
        ClassWriter writer = new ClassWriter(ClassWriter.COMPUTE_FRAMES) {
            @Override
            protected String getCommonSuperClass(String first, String second) {
                return hierarchy.commonParent(first, second);
            }
        };
        new ClassReader(bytes).accept(new Completer(writer, hierarchy), ClassReader.SKIP_FRAMES);
        return writer.toByteArray();
    }

    private static Map<String, byte[]> read(Path jar) throws Exception {
        Map<String, byte[]> classes = new TreeMap<>();
        try (ZipFile archive = new ZipFile(jar.toFile())) {
            for (ZipEntry entry : Collections.list(archive.entries())) {
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

    /** What a class extends; null for java.lang.Object and for interfaces' own parents. */
    private record Kind(boolean isInterface, String parent, String[] interfaces) {
        static final Kind UNKNOWN = new Kind(false, "java/lang/Object", new String[0]);

        static Kind read(ClassReader reader) {
            boolean isInterface = (reader.getAccess() & Opcodes.ACC_INTERFACE) != 0;
            return new Kind(isInterface, reader.getSuperName(), reader.getInterfaces());
        }
    }

    /** Who extends whom: in the APK, the phone's framework and the JDK. */
    private static final class Hierarchy {
        private final Map<String, Kind> known = new HashMap<>();
        private final ClassLoader platform;

        Hierarchy(Iterable<byte[]> classes, Path framework) throws Exception {
            URL[] jars = {framework.toUri().toURL()};
            platform = new URLClassLoader(jars, ClassLoader.getPlatformClassLoader());
            for (byte[] bytes : classes) {
                ClassReader reader = new ClassReader(bytes);
                known.put(reader.getClassName(), Kind.read(reader));
            }
        }

        boolean isInterface(String name) {
            return kind(name).isInterface();
        }

        /** The nearest class that both are, which for interfaces is java.lang.Object. */
        String commonParent(String first, String second) {
            if (is(second, first)) {
                return first;
            }
            if (is(first, second)) {
                return second;
            }
            if (isInterface(first) || isInterface(second)) {
                return "java/lang/Object";
            }
            String parent = first;
            while (parent != null && !is(second, parent)) {
                parent = kind(parent).parent();
            }
            return parent == null ? "java/lang/Object" : parent;
        }

        private boolean is(String name, String wanted) {
            if (name == null) {
                return false;
            }
            if (name.equals(wanted) || wanted.equals("java/lang/Object")) {
                return true;
            }
            Kind kind = kind(name);
            if (is(kind.parent(), wanted)) {
                return true;
            }
            for (String each : kind.interfaces()) {
                if (is(each, wanted)) {
                    return true;
                }
            }
            return false;
        }

        private Kind kind(String name) {
            Kind kind = known.get(name);
            if (kind == null) {
                kind = ofThePlatform(name);
                known.put(name, kind);
            }
            return kind;
        }

        private Kind ofThePlatform(String name) {
            try (InputStream bytes = platform.getResourceAsStream(name + ".class")) {
                return bytes == null ? Kind.UNKNOWN : Kind.read(new ClassReader(bytes));
            } catch (IOException problem) {
                throw new UncheckedIOException(problem);
            }
        }
    }

    /** Gives calls their kind of class, and classes a version that has all that D8 leaves in. */
    private static final class Completer extends ClassVisitor {
        private final Hierarchy hierarchy;

        Completer(ClassVisitor next, Hierarchy hierarchy) {
            super(Opcodes.ASM9, next);
            this.hierarchy = hierarchy;
        }

        @Override
        public void visit(
                int version, int access, String name, String signature, String parent,
                String[] interfaces) {
            int newer = Math.max(version & 0xffff, Opcodes.V1_8);
            super.visit(newer, access, name, signature, parent, interfaces);
        }

        @Override
        public MethodVisitor visitMethod(
                int access, String name, String type, String signature, String[] exceptions) {
            MethodVisitor next = super.visitMethod(access, name, type, signature, exceptions);
            return new MethodVisitor(Opcodes.ASM9, next) {
                @Override
                public void visitMethodInsn(
                        int opcode, String owner, String name, String type, boolean isInterface) {
                    boolean told = isInterface
                            || (opcode != Opcodes.INVOKEVIRTUAL && hierarchy.isInterface(owner));
                    super.visitMethodInsn(opcode, owner, name, type, told);
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
