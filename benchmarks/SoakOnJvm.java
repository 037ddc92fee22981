import dev.alc.app.Door;
import dev.alc.app.DoorRequest;
import dev.alc.engine.InvalidRequestException;
import dev.alc.runtime.MLCInferenceStrategy;
import dev.alc.runtime.TVMRuntime;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import kotlin.Unit;
import kotlinx.coroutines.BuildersKt;

/** The app's door on a plain JVM: libalc_runtime.so, a request, and the folder of its result. */
class SoakOnJvm {
    public static void main(String[] arguments) throws Exception {
        String library = arguments[0];
        DoorRequest request = DoorRequest.Companion.read(new File(arguments[1]));
        File folder = new File(arguments[2]);
        Door door =
                new Door(
                        new MLCInferenceStrategy(new File(folder, "code"), library),
                        "soak",
                        "",
                        SoakOnJvm::pssKb,
                        () -> TVMRuntime.Companion.load(library).getHeldHandles(),
                        line -> Unit.INSTANCE,
                        text -> {
                            System.out.println(text);
                            return Unit.INSTANCE;
                        },
                        System::nanoTime,
                        System::currentTimeMillis,
                        (int) ProcessHandle.current().pid(),
                        socket -> {
                            throw new InvalidRequestException("nobody can connect here", null);
                        });
        BuildersKt.runBlocking(
                kotlin.coroutines.EmptyCoroutineContext.INSTANCE,
                (scope, then) -> door.serve(request, folder, then));
    }

    private static Long pssKb() {
        try {
            return Files.readAllLines(Path.of("/proc/self/smaps_rollup")).stream()
                    .filter(line -> line.startsWith("Pss:"))
                    .map(line -> Long.valueOf(line.replaceAll("\\D", "")))
                    .findFirst()
                    .orElseThrow();
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }
}
