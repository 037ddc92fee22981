import dev.alc.engine.ALCEngine;
import dev.alc.engine.ChatMessage;
import dev.alc.engine.ContextPolicy;
import dev.alc.engine.EngineConfig;
import dev.alc.engine.GenerationEvent;
import dev.alc.engine.GenerationRequest;
import dev.alc.engine.LoadOptions;
import dev.alc.engine.Prompt;
import dev.alc.engine.ResponseFormat;
import dev.alc.engine.SamplingOptions;
import dev.alc.engine.StreamingPolicy;
import dev.alc.runtime.MLCInferenceStrategy;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.util.List;
import kotlin.Unit;
import kotlin.coroutines.EmptyCoroutineContext;
import kotlinx.coroutines.BuildersKt;

/**
 * Loads a model, answers with one token and gives the model back, once for each line of standard
 * input, and prints for each: nanoseconds until it was loaded, and until the token was there. A line
 * is the text that the token goes on from; an empty one stands for the prompt, as a turn of a chat.
 * Arguments: libalc_runtime.so, the package, the code cache, threads, the prompt.
 */
public final class FirstToken {
    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in));
        String line;
        while ((line = lines.readLine()) != null) load(arguments, line);
    }

    private static void load(String[] arguments, String text) throws Exception {
        long[] times = new long[2];
        long begin = System.nanoTime();
        var strategy = new MLCInferenceStrategy(new File(arguments[2]), arguments[0]);
        var engine = new ALCEngine(strategy, new EngineConfig(), System::nanoTime, null);
        var options = new LoadOptions(Integer.parseInt(arguments[3]), null, 4, false, Long.MAX_VALUE, null, false);
        var request = new GenerationRequest(
                text.isEmpty()
                        ? new Prompt.Turn(List.of(new ChatMessage("user", arguments[4])))
                        : new Prompt.Text(text),
                null,
                1,
                new SamplingOptions(),
                new StreamingPolicy.Slow(),
                List.of(),
                ResponseFormat.TEXT,
                ContextPolicy.REFUSE);
        BuildersKt.runBlocking(
                EmptyCoroutineContext.INSTANCE, (scope, then) -> engine.load(arguments[1], options, then));
        times[0] = System.nanoTime() - begin;
        BuildersKt.runBlocking(
                EmptyCoroutineContext.INSTANCE,
                (scope, then) -> engine.generate(request).collect((event, next) -> {
                    if (event instanceof GenerationEvent.Failed failed) throw failed.getError();
                    if (event instanceof GenerationEvent.Tokens some && times[1] == 0) {
                        times[1] = some.getNanos()[0] - begin;
                    }
                    return Unit.INSTANCE;
                }, then));
        System.out.println(times[0] + " " + times[1]);
        BuildersKt.runBlocking(EmptyCoroutineContext.INSTANCE, (scope, then) -> engine.close(then));
    }
}
