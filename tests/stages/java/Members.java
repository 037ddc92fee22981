import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.ObjectInputStream;
import java.io.PrintStream;
import java.util.zip.GZIPInputStream;
import org.codehaus.mojo.animal_sniffer.Clazz;
import org.codehaus.mojo.animal_sniffer.SignatureBuilder;
import org.codehaus.mojo.animal_sniffer.logging.PrintWriterLogger;

/**
 * Prints the classes of a signature of Animal Sniffer and of the jars after it, one a line: name, superclass,
 * interfaces (separated by commas) and members (name and descriptor, separated by spaces), with
 * tabs between them.
 */
public final class Members {
    private Members() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream output = new PrintStream(System.out, false, "UTF-8");
        print(new FileInputStream(arguments[0]), output);
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        PrintWriterLogger silent =
                new PrintWriterLogger(new PrintStream(new ByteArrayOutputStream()));
        SignatureBuilder builder = new SignatureBuilder(bytes, silent);
        for (int number = 1; number < arguments.length; number++) {
            builder.process(new File(arguments[number]));
        }
        builder.close();
        print(new ByteArrayInputStream(bytes.toByteArray()), output);
        output.flush();
    }

    private static void print(InputStream input, PrintStream output) throws Exception {
        try (ObjectInputStream objects = new ObjectInputStream(new GZIPInputStream(input))) {
            for (Clazz each = next(objects); each != null; each = next(objects)) {
                String parent = each.getSuperClass() == null ? "" : each.getSuperClass();
                String interfaces = String.join(",", each.getSuperInterfaces());
                String members = String.join(" ", each.getSignatures());
                output.println(String.join("\t", each.getName(), parent, interfaces, members));
            }
        }
    }

    private static Clazz next(ObjectInputStream objects) throws Exception {
        return (Clazz) objects.readObject();
    }
}
