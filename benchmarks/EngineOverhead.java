import com.sun.management.ThreadMXBean;
import dev.alc.app.DoorStep;
import dev.alc.app.StepRecorder;
import dev.alc.engine.ALCEngine;
import dev.alc.engine.ChatMessage;
import dev.alc.engine.ContextPolicy;
import dev.alc.engine.EngineConfig;
import dev.alc.engine.GenerationEvent;
import dev.alc.engine.GenerationRequest;
import dev.alc.engine.LoadOptions;
import dev.alc.engine.MetricsLog;
import dev.alc.engine.ModelInfo;
import dev.alc.engine.Prompt;
import dev.alc.engine.ResponseFormat;
import dev.alc.engine.SamplingOptions;
import dev.alc.engine.StreamingPolicy;
import dev.alc.runtime.MLCInferenceStrategy;
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import kotlin.Unit;
import kotlin.coroutines.Continuation;
import kotlin.coroutines.EmptyCoroutineContext;
import kotlin.jvm.functions.Function2;
import kotlinx.coroutines.BuildersKt;
import kotlinx.coroutines.CoroutineScope;

/**
 * Answers the same prompt in several ways, in turns, and prints what each token took. Arguments:
 * libalc_runtime.so, the package, a scratch folder, rounds, tokens, threads. Its lines:
 *
 * <pre>
 * token VARIANT ROUND NANOS LONGEST NATIVE   a token, the longest call of native code in it, all calls
 * bytes VARIANT OWN ALL                      allocated for a token by the decode thread, by all threads
 * log ROUND RECORDS RECORDER WRITER          nanoseconds of processor time for a whole answer's records
 * </pre>
 */
public final class EngineOverhead {
    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    private static final String PROMPT = "Tell me a long story about a lighthouse and the people who live near it.";

    // Compilers of Java work on in the background meanwhile.
    private static final int WARM_ROUNDS = 8;

    // About six native calls are made for a token; bytes are counted over the second half of them.
    private static final int CALLS = 6;

    private final ALCEngine engine;
    private final File scratch;
    private final int tokens;
    private final SamplingOptions greedy;
    private final SamplingOptions json;
    private final SamplingOptions drawn;

    private EngineOverhead(ALCEngine engine, ModelInfo model, File scratch, int tokens) {
        this.engine = engine;
        this.scratch = scratch;
        this.tokens = tokens;
        // Answers that a bias or a penalty changes go on to their last token; a story does by itself.
        Map<Integer, Float> endless = new HashMap<>();
        for (int id : model.getEosTokenIds()) endless.put(id, Float.NEGATIVE_INFINITY);
        greedy = new SamplingOptions(0f, 1f, 0, 0f, 1f, 1f, 0f, 0f, Map.of(), 0);
        json = new SamplingOptions(0f, 1f, 0, 0f, 1f, 1f, 0f, 0f, endless, 0);
        drawn = new SamplingOptions(0.7f, 0.95f, 40, 0f, 1f, 1.1f, 0.1f, 0.1f, endless, 1);
    }

    public static void main(String[] arguments) throws Exception {
        File scratch = new File(arguments[2]);
        int rounds = Integer.parseInt(arguments[3]);
        var strategy = new MLCInferenceStrategy(new File(scratch, "code"), arguments[0]);
        var engine = new ALCEngine(strategy, new EngineConfig(), System::nanoTime, null);
        var options = new LoadOptions(Integer.parseInt(arguments[5]), null, 4, false, Long.MAX_VALUE, null, false);
        ModelInfo model = blocking((scope, then) -> engine.load(arguments[1], options, then));
        var self = new EngineOverhead(engine, model, scratch, Integer.parseInt(arguments[4]));
        for (int round = -WARM_ROUNDS; round < rounds; round++) self.round(round);
        self.bytes();
        blocking((scope, then) -> engine.close(then));
    }

    /** Each variant once; rounds below 0 are to get warm. */
    private void round(int round) throws Exception {
        List<String> order = new ArrayList<>(List.of("greedy", "screen", "drawn", "json", "logged"));
        // Another one goes first each time.
        Collections.rotate(order, round);
        for (String variant : order) {
            List<Long> stamps = variant.equals("logged") ? logged(round) : answer(variant, null);
            if (round >= 0) printTokens(variant, round, stamps);
        }
    }

    private void bytes() throws Exception {
        for (String variant : List.of("greedy", "drawn", "json")) {
            int middle = tokens / 2 * CALLS;
            int last = (tokens - 2) * CALLS;
            List<Long> stamps = answer(variant, null, middle, last);
            NativeCalls.Mark from = NativeCalls.marks[0];
            NativeCalls.Mark until = NativeCalls.marks[1];
            if (NativeCalls.count <= last) continue;
            long between = stamps.stream().filter(it -> it > from.nanos() && it <= until.nanos()).count();
            long own = (until.ownBytes() - from.ownBytes()) / between;
            long all = (until.allBytes() - from.allBytes()) / between;
            System.out.printf("bytes %s %d %d%n", variant, own, all);
        }
    }

    private void printTokens(String variant, int round, List<Long> stamps) {
        int call = 0;
        for (int token = 1; token < stamps.size(); token++) {
            long from = stamps.get(token - 1);
            long until = stamps.get(token);
            long longest = 0;
            long all = 0;
            while (call < NativeCalls.count && NativeCalls.begins[call] < from) call++;
            for (; call < NativeCalls.count && NativeCalls.begins[call] < until; call++) {
                long nanos = NativeCalls.ends[call] - NativeCalls.begins[call];
                longest = Math.max(longest, nanos);
                all += nanos;
            }
            System.out.printf("token %s %d %d %d %d%n", variant, round, until - from, longest, all);
        }
    }

    /** A greedy answer whose records go to a file and, a line at a time, to a stream, as to logcat. */
    private List<Long> logged(int round) throws Exception {
        File file = new File(scratch, "metrics-" + round + ".jsonl");
        try (OutputStream lines = new FileOutputStream(new File(scratch, "log-" + round));
                MetricsLog log = new MetricsLog("00000000", file, line -> write(lines, line))) {
            DoorStep step = new DoorStep("p1", PROMPT, "main", null, true, tokens, 0f, 1f, 0, 0f, 1f, 1f, 0f,
                    0f, Map.of(), 0L, List.of(), "text", "refuse", null, true);
            Recording recording = new Recording(new StepRecorder(step, log, System::nanoTime));
            List<Long> stamps = answer("greedy", recording);
            int records = log.finish().getRecords();
            long writer = cpuNanos("alc-metrics");
            if (round >= 0) System.out.printf("log %d %d %d %d%n", round, records, recording.nanos, writer);
            return stamps;
        }
    }

    private static Unit write(OutputStream lines, String line) {
        try {
            lines.write((line + "\n").getBytes(StandardCharsets.US_ASCII));
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
        return Unit.INSTANCE;
    }

    private static long cpuNanos(String thread) {
        return Arrays.stream(THREADS.getThreadInfo(THREADS.getAllThreadIds()))
                .filter(it -> it != null && it.getThreadName().equals(thread))
                .mapToLong(it -> THREADS.getThreadCpuTime(it.getThreadId()))
                .sum();
    }

    /** What the app records of an answer, and the processor's time that it took. */
    private static final class Recording {
        private final StepRecorder recorder;
        private long nanos;

        Recording(StepRecorder recorder) {
            this.recorder = recorder;
        }

        void take(GenerationEvent event) {
            long begin = THREADS.getCurrentThreadCpuTime();
            if (event instanceof GenerationEvent.Started started) recorder.started(started);
            if (event instanceof GenerationEvent.Prefilled prefilled) recorder.prefilled(prefilled);
            if (event instanceof GenerationEvent.Tokens some) recorder.tokens(some);
            if (event instanceof GenerationEvent.Finished finished) recorder.finished(finished);
            nanos += THREADS.getCurrentThreadCpuTime() - begin;
        }
    }

    private List<Long> answer(String variant, Recording recording) throws Exception {
        return answer(variant, recording, -1, -1);
    }

    /** When each token of an answer came. */
    private List<Long> answer(String variant, Recording recording, int from, int until) throws Exception {
        var request = new GenerationRequest(
                new Prompt.Turn(List.of(new ChatMessage("user", PROMPT))),
                null,
                tokens,
                switch (variant) {
                    case "drawn" -> drawn;
                    case "json" -> json;
                    default -> greedy;
                },
                variant.equals("screen") ? new StreamingPolicy.Coalesce(50, 64) : new StreamingPolicy.Slow(),
                List.of(),
                variant.equals("json") ? ResponseFormat.JSON : ResponseFormat.TEXT,
                ContextPolicy.REFUSE);
        List<Long> stamps = new ArrayList<>(tokens);
        NativeCalls.begin(from, until);
        blocking((scope, then) -> engine.generate(request).collect((event, next) -> {
            if (recording != null) recording.take(event);
            if (event instanceof GenerationEvent.Failed failed) throw failed.getError();
            if (event instanceof GenerationEvent.Tokens some) {
                for (long nanos : some.getNanos()) stamps.add(nanos);
            }
            return Unit.INSTANCE;
        }, then));
        return stamps;
    }

    @SuppressWarnings("unchecked")
    private static <T> T blocking(Function2<CoroutineScope, Continuation<? super T>, Object> work)
            throws Exception {
        var any = (Function2<CoroutineScope, Continuation<? super Object>, Object>) (Function2<?, ?, ?>) work;
        return (T) BuildersKt.runBlocking(EmptyCoroutineContext.INSTANCE, any);
    }
}
