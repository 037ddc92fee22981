import java.nio.file.Files;
import java.nio.file.Path;
import java.util.zip.ZipFile;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

/**
 * Makes a copy of CallFrame that calls NativeCalls.call instead of NativeBindings.call, so that a
 * benchmark sees each call of native code. Arguments: the runtime's jar, and where the copy goes.
 */
public final class Retarget {
    private static final String FRAME = "dev/alc/runtime/CallFrame.class";

    public static void main(String[] arguments) throws Exception {
        try (ZipFile jar = new ZipFile(arguments[0])) {
            var reader = new ClassReader(jar.getInputStream(jar.getEntry(FRAME)).readAllBytes());
            var writer = new ClassWriter(0);
            int[] changed = {0};
            reader.accept(new Visitor(writer, changed), 0);
            if (changed[0] == 0) throw new IllegalStateException("CallFrame calls no native code");
            Path copy = Path.of(arguments[1], FRAME);
            Files.createDirectories(copy.getParent());
            Files.write(copy, writer.toByteArray());
        }
    }

    private static final class Visitor extends ClassVisitor {
        private final int[] changed;

        Visitor(ClassVisitor next, int[] changed) {
            super(Opcodes.ASM9, next);
            this.changed = changed;
        }

        @Override
        public MethodVisitor visitMethod(
                int access, String name, String type, String signature, String[] thrown) {
            MethodVisitor next = super.visitMethod(access, name, type, signature, thrown);
            return new MethodVisitor(Opcodes.ASM9, next) {
                @Override
                public void visitMethodInsn(
                        int code, String owner, String called, String type, boolean isInterface) {
                    boolean ours = owner.equals("dev/alc/runtime/NativeBindings") && called.equals("call");
                    if (ours) changed[0]++;
                    super.visitMethodInsn(code, ours ? "NativeCalls" : owner, called, type, isInterface);
                }
            };
        }
    }
}
