import dev.alc.engine.JsonGrammar;
import dev.alc.engine.MarkedText;
import dev.alc.engine.TokenConstraint;
import dev.alc.engine.TokenSet;
import dev.alc.engine.Tokenizer;
import dev.alc.runtime.TVMTokenizer;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;

/**
 * Says what the Kotlin grammar makes of texts, for a test in Python: how much it takes of those on
 * standard input, and texts that it lets come about. Binary in and out.
 */
public final class JsonCases {
    private static final int END = 0;

    public static void main(String[] arguments) throws IOException {
        DataOutputStream out = new DataOutputStream(System.out);
        if (arguments[0].equals("take")) {
            take(new DataInputStream(System.in), out);
        } else {
            say(TVMTokenizer.Companion.read(new File(arguments[1])), Integer.parseInt(arguments[2]), out);
        }
        out.flush();
    }

    /** For each text the number of bytes that are taken, and whether they are an object then. */
    private static void take(DataInputStream in, DataOutputStream out) throws IOException {
        JsonGrammar grammar = new JsonGrammar(new Bytes(), Set.of());
        for (int count = in.readInt(); count > 0; count--) {
            byte[] text = in.readNBytes(in.readInt());
            TokenConstraint answer = grammar.begin();
            int taken = 0;
            while (taken < text.length && answer.allowed().contains(text[taken] & 0xff)) {
                answer.accept(text[taken++] & 0xff);
            }
            out.writeInt(taken);
            out.writeBoolean(answer.getFinished());
        }
    }

    /** Texts of tokens drawn from those allowed, and whether each is finished. */
    private static void say(Tokenizer tokenizer, int count, DataOutputStream out) throws IOException {
        JsonGrammar grammar = new JsonGrammar(tokenizer, Set.of(END));
        List<Integer> all = new ArrayList<>();
        List<Integer> marks = new ArrayList<>();
        for (int id = 0; id < tokenizer.getVocabSize(); id++) {
            all.add(id);
            if (hasMark(tokenizer.tokenBytes(id, id))) marks.add(id);
        }
        for (int seed = 0; seed < count; seed++) {
            Random random = new Random(seed);
            TokenConstraint answer = grammar.begin();
            ByteArrayOutputStream text = new ByteArrayOutputStream();
            int previous = Tokenizer.NO_TOKEN;
            for (int left = 1 + random.nextInt(80); left > 0 && !answer.getFinished(); left--) {
                // Half the time one with a quote or bracket: of what fits in a string few have one.
                List<Integer> from = allowed(answer.allowed(), random.nextBoolean() ? all : marks);
                if (from.isEmpty()) from = allowed(answer.allowed(), all);
                int token = from.get(random.nextInt(from.size()));
                answer.accept(token);
                text.write(tokenizer.tokenBytes(token, previous));
                previous = token;
            }
            out.writeInt(text.size());
            text.writeTo(out);
            out.writeBoolean(answer.getFinished());
        }
    }

    /** Those of {@code ids} that are allowed. */
    private static List<Integer> allowed(TokenSet allowed, List<Integer> ids) {
        List<Integer> found = new ArrayList<>();
        for (int id : ids) if (allowed.contains(id)) found.add(id);
        return found;
    }

    private static boolean hasMark(byte[] bytes) {
        for (byte unit : bytes) if ("{}[]\"\\".indexOf(unit) >= 0) return true;
        return false;
    }

    /** One token for each byte. */
    private static final class Bytes implements Tokenizer {
        public int getVocabSize() {
            return 256;
        }

        public int[] getStartTokens() {
            return new int[0];
        }

        public int[] encode(MarkedText text) {
            throw new UnsupportedOperationException();
        }

        public int[] encode(String text) {
            throw new UnsupportedOperationException();
        }

        public byte[] tokenBytes(int id, int previous) {
            return new byte[] {(byte) id};
        }

        public boolean isSpecial(int id) {
            return false;
        }

        public Integer idOf(String token) {
            return null;
        }

        public String decode(int[] ids, boolean skipSpecial) {
            throw new UnsupportedOperationException();
        }
    }
}
