import dev.alc.engine.EngineException;
import dev.alc.engine.LoadOptions;
import dev.alc.engine.LoadedModel;
import dev.alc.engine.ModelSession;
import dev.alc.runtime.TVMModelLoader;
import dev.alc.runtime.TVMRuntime;
import java.io.File;
import java.nio.FloatBuffer;
import kotlin.Unit;
import kotlin.coroutines.EmptyCoroutineContext;
import kotlinx.coroutines.BuildersKt;

/**
 * Loads a package with each variant that is asked for ("-" for the engine's own choice) and prints
 * what computes and the greedy answer to a prompt, or how the variant was refused.
 */
public final class VariantCases {
    public static void main(String[] arguments) throws Exception {
        TVMRuntime runtime = TVMRuntime.Companion.load(arguments[0]);
        TVMModelLoader loader = new TVMModelLoader(runtime, new File(arguments[1]));
        String[] prompt = arguments[3].split(",");
        int[] tokens = new int[prompt.length];
        for (int i = 0; i < prompt.length; i++) tokens[i] = Integer.parseInt(prompt[i]);
        int count = Integer.parseInt(arguments[4]);
        for (int i = 5; i < arguments.length; i++) {
            String variant = arguments[i].equals("-") ? null : arguments[i];
            try (LoadedModel model = open(loader, arguments[2], variant)) {
                System.out.println(model.getInfo().getBackend() + answer(model, tokens, count));
            } catch (EngineException refusal) {
                System.out.println(refusal.getKind() + ": " + refusal.getMessage());
            }
        }
    }

    private static LoadedModel open(TVMModelLoader loader, String path, String variant)
            throws InterruptedException {
        LoadOptions options = new LoadOptions(2, null, 1, false, Long.MAX_VALUE, variant, false);
        return (LoadedModel) BuildersKt.runBlocking(
                EmptyCoroutineContext.INSTANCE,
                (scope, caller) -> loader.load(path, options, progress -> Unit.INSTANCE, caller));
    }

    private static String answer(LoadedModel model, int[] prompt, int count) {
        StringBuilder answer = new StringBuilder();
        try (ModelSession session = model.openSession()) {
            int token = best(session.prefill(prompt));
            for (int i = 1; i <= count; i++) {
                answer.append(' ').append(token);
                if (i < count) token = best(session.decode(token));
            }
        }
        return answer.toString();
    }

    private static int best(FloatBuffer logits) {
        int best = 0;
        for (int i = 1; i < logits.limit(); i++) if (logits.get(i) > logits.get(best)) best = i;
        return best;
    }
}
