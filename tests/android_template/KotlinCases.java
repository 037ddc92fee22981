import dev.alc.engine.ChatMessage;
import dev.alc.engine.ChatTemplateException;
import dev.alc.engine.EngineException;
import dev.alc.engine.MarkedText;
import dev.alc.engine.StreamingDetokenizer;
import dev.alc.runtime.CompiledChatTemplate;
import dev.alc.runtime.TVMTokenizer;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import kotlin.ranges.IntRange;

/**
 * Answers questions about the Kotlin tokenizer and templates, one a line, for tests in Python.
 * Texts travel as the hexadecimal digits of their UTF-16 units, so that anything can be asked.
 */
public final class KotlinCases {
    private static TVMTokenizer tokenizer;
    private static CompiledChatTemplate template;

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "US-ASCII"));
        PrintStream out = new PrintStream(System.out, false, "US-ASCII");
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                out.println(answer(line.split(" ", -1)));
            } catch (ChatTemplateException refusal) {
                out.println("refused " + hex(refusal.getMessage()));
            } catch (EngineException failure) {
                out.println("failed " + failure.getKind() + " " + hex(failure.getMessage()));
            }
            out.flush();
        }
    }

    private static String answer(String[] words) {
        switch (words[0]) {
            case "tokenizer":
                tokenizer = TVMTokenizer.Companion.read(new File(text(words[1])));
                return "size " + tokenizer.getVocabSize();
            case "template":
                template = CompiledChatTemplate.Companion.parse(text(words[1]), "template");
                return "ok";
            case "plain":
                return ids(tokenizer.encode(MarkedText.Companion.plain(text(words[1]))));
            case "markup":
                return ids(tokenizer.encode(MarkedText.Companion.markup(text(words[1]))));
            case "all": {
                StringBuilder line = new StringBuilder("all");
                for (int at = 1; at < words.length; at++) {
                    int[] found = tokenizer.encode(MarkedText.Companion.plain(text(words[at])));
                    line.append(' ');
                    for (int id : found) line.append(id).append(',');
                    line.append(':').append(hex(tokenizer.decode(found, false)));
                }
                return line.toString();
            }
            case "rest":
                return ids(tokenizer.encode(MarkedText.Companion.markup(text(words[1])).drop(Integer.parseInt(words[2]))));
            case "decode":
                return hex(tokenizer.decode(numbers(words), false));
            case "stream": {
                StreamingDetokenizer detokenizer = new StreamingDetokenizer(tokenizer, false);
                StringBuilder joined = new StringBuilder();
                for (int id : numbers(words)) joined.append(detokenizer.add(id));
                return hex(joined.append(detokenizer.finish()).toString());
            }
            case "time": {
                String text = text(words[1]);
                tokenizer.encode(MarkedText.Companion.plain(text));
                long start = cpuNanos();
                tokenizer.encode(MarkedText.Companion.plain(text));
                return Long.toString(cpuNanos() - start);
            }
            case "render":
            case "prompt": {
                List<ChatMessage> messages = new ArrayList<>();
                for (int at = 2; at < words.length; at += 2) {
                    messages.add(new ChatMessage(text(words[at]), text(words[at + 1])));
                }
                MarkedText result = template.render(messages, words[1].equals("1"));
                if (words[0].equals("prompt")) return ids(tokenizer.encode(result));
                StringBuilder marks = new StringBuilder();
                for (IntRange range : result.getMarkup()) {
                    marks.append(' ').append(range.getFirst()).append(' ').append(range.getLast());
                }
                return "text " + hex(result.getText()) + marks;
            }
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }

    /** What this thread has computed for so far: what others do on the machine is not in it. */
    private static long cpuNanos() {
        return ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime();
    }

    private static int[] numbers(String[] words) {
        return Arrays.stream(words).skip(1).filter(word -> !word.isEmpty()).mapToInt(Integer::parseInt).toArray();
    }

    private static String ids(int[] values) {
        StringBuilder line = new StringBuilder("ids");
        for (int value : values) line.append(' ').append(value);
        return line.toString();
    }

    private static String text(String hex) {
        StringBuilder result = new StringBuilder(hex.length() / 4);
        for (int at = 0; at < hex.length(); at += 4) {
            result.append((char) Integer.parseInt(hex.substring(at, at + 4), 16));
        }
        return result.toString();
    }

    private static String hex(String text) {
        StringBuilder result = new StringBuilder(4 * text.length());
        for (int at = 0; at < text.length(); at++) {
            for (int shift = 12; shift >= 0; shift -= 4) {
                result.append(Character.forDigit(text.charAt(at) >> shift & 15, 16));
            }
        }
        return result.toString();
    }
}
