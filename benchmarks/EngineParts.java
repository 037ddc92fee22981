package dev.alc.benchmarks;

import dev.alc.engine.JsonGrammar;
import dev.alc.engine.LmxEncoder;
import dev.alc.engine.SamplingOptions;
import dev.alc.engine.StreamingDetokenizer;
import dev.alc.engine.TokenConstraint;
import dev.alc.engine.TokenSet;
import dev.alc.engine.TopPSampler;
import dev.alc.runtime.TVMTokenizer;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;
import org.openjdk.jmh.infra.Blackhole;

/**
 * The parts of the engine that work for each token, for each prompt, and at each load. The system
 * properties `tokenizer` and `text` name a tokenizer.alc and a text.
 */
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 4, time = 1)
@Fork(2)
public class EngineParts {
    private static Path property(String name) {
        return Path.of(System.getProperty(name));
    }

    @State(Scope.Thread)
    public static class Sampler {
        @Param({"49152", "262144"})
        public int vocabulary;

        private FloatBuffer logits;
        private TopPSampler greedy;
        private TopPSampler drawn;
        private TopPSampler nucleus;

        @Setup
        public void begin() {
            Random random = new Random(1);
            // Where the runtime has them: outside of the heap.
            logits = ByteBuffer.allocateDirect(vocabulary * Float.BYTES)
                    .order(ByteOrder.nativeOrder())
                    .asFloatBuffer();
            for (int id = 0; id < vocabulary; id++) logits.put(id, (float) random.nextGaussian() * 3);
            greedy = new TopPSampler(new SamplingOptions(), vocabulary);
            drawn = new TopPSampler(
                    new SamplingOptions(0.7f, 0.95f, 40, 0f, 1f, 1.1f, 0.1f, 0.1f, Map.of(), 1), vocabulary);
            nucleus = new TopPSampler(
                    new SamplingOptions(0.7f, 0.95f, 0, 0f, 1f, 1f, 0f, 0f, Map.of(), 1), vocabulary);
            for (int token = 0; token < 300; token++) {
                drawn.prompt(random.nextInt(vocabulary));
                drawn.accept(random.nextInt(vocabulary));
            }
        }
    }

    @Benchmark
    public int sampleGreedy(Sampler state) {
        return state.greedy.sample(state.logits, null);
    }

    @Benchmark
    public int sampleDrawn(Sampler state) {
        return state.drawn.sample(state.logits, null);
    }

    @Benchmark
    public int sampleNucleus(Sampler state) {
        return state.nucleus.sample(state.logits, null);
    }

    @State(Scope.Thread)
    public static class Text {
        private byte[] file;
        private TVMTokenizer tokenizer;
        private String text;
        private int[] ids;
        private StreamingDetokenizer detokenizer;
        private int next;

        @Setup
        public void begin() throws IOException {
            file = Files.readAllBytes(property("tokenizer"));
            text = Files.readString(property("text"));
            tokenizer = TVMTokenizer.Companion.parse(file, "tokenizer.alc");
            ids = tokenizer.encode(text);
            detokenizer = new StreamingDetokenizer(tokenizer, true);
        }
    }

    @Benchmark
    public int[] encodeText(Text state) {
        return state.tokenizer.encode(state.text);
    }

    @Benchmark
    public String detokenizeToken(Text state) {
        if (state.next == state.ids.length) state.next = 0;
        return state.detokenizer.add(state.ids[state.next++]);
    }

    @Benchmark
    public TVMTokenizer loadVocabulary(Text state) {
        return TVMTokenizer.Companion.parse(state.file, "tokenizer.alc");
    }

    @State(Scope.Thread)
    public static class Log {
        private final LmxEncoder encoder = new LmxEncoder("0123abcd");
        private String record;
        private int number;

        /** What the app says of 16 tokens. */
        @Setup
        public void begin() {
            StringBuilder ids = new StringBuilder();
            StringBuilder nanos = new StringBuilder();
            for (int token = 0; token < 16; token++) {
                ids.append(token == 0 ? "" : ",").append(1000 + 2971 * token);
                nanos.append(token == 0 ? "" : ",").append(81_234_567_890_123L + 7_654_321L * token);
            }
            record = "{\"t\":\"tokens\",\"step\":\"p1\",\"first\":0,\"ids\":[" + ids + "],\"ns\":[" + nanos + "]}";
        }
    }

    @Benchmark
    public List<String> encodeRecord(Log state) {
        return state.encoder.lines(state.number++, LmxEncoder.Companion.ascii(state.record));
    }

    @State(Scope.Thread)
    public static class Json {
        private static final String ANSWER =
                "{\"name\": \"Elbe\", \"length\": 1094.5, \"tidal\": true, \"mouths\": [\"North Sea\", null], "
                        + "\"note\": \"The r\\u00edver passes Dresden, Magdeburg \\u2014 and Hamburg.\"}";
        private TVMTokenizer tokenizer;
        private JsonGrammar grammar;
        private int[] ids;

        @Setup
        public void begin() throws IOException {
            tokenizer = TVMTokenizer.Companion.read(property("tokenizer").toFile());
            ids = tokenizer.encode(ANSWER);
            grammar = grammar();
        }

        private JsonGrammar grammar() {
            return new JsonGrammar(tokenizer, Set.of(2));
        }

        private void walk(JsonGrammar grammar, Blackhole sink) {
            TokenConstraint answer = grammar.begin();
            for (int id : ids) {
                TokenSet allowed = answer.allowed();
                sink.consume(allowed);
                answer.accept(id);
            }
            if (!answer.getFinished()) throw new IllegalStateException("the answer is no JSON object");
        }
    }

    @Benchmark
    public JsonGrammar makeGrammar(Json state) {
        return state.grammar();
    }

    /** The masks of a whole answer, by a grammar that has none yet. */
    @Benchmark
    public void firstAnswer(Json state, Blackhole sink) {
        state.walk(state.grammar(), sink);
    }

    /** The masks of a whole answer, by a grammar that has seen its like. */
    @Benchmark
    public void laterAnswer(Json state, Blackhole sink) {
        state.walk(state.grammar, sink);
    }
}
