package android.app;

import android.content.Intent;
import android.content.pm.ApplicationInfo;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.os.Process;
import android.util.Log;

import dalvik.system.PathClassLoader;

import java.io.EOFException;
import java.io.IOException;
import java.util.Map;

/** The main thread of an app's process: binds to the system, then runs the main looper. */
public final class ActivityThread {
    private static final int KILLED_BY_EXCEPTION = 10;

    private static ActivityThread current;

    private final SystemLink link;
    private final Handler handler = new Handler(Looper.getMainLooper());
    private Instrumentation instrumentation = new Instrumentation();
    private Application application;

    private ActivityThread(SystemLink link) {
        this.link = link;
    }

    /** Starts the process; the argument is the token that the system awaits. */
    public static void main(String[] arguments) throws IOException {
        Looper.prepareMainLooper();
        SystemLink link = SystemLink.connect(arguments[0]);
        ActivityThread thread = new ActivityThread(link);
        current = thread;
        Thread.setDefaultUncaughtExceptionHandler((where, problem) -> thread.die(where, problem));
        SystemLink.Received bind = link.receive();
        if (bind.kind != SystemLink.TO_APP_BIND) {
            throw new IOException("expected to be bound, got frame " + bind.kind);
        }
        Map<String, String> facts = bind.bundle();
        Map<String, String> instrumenting = bind.bundle();
        Thread.currentThread().setName("main");
        // First in the queue: whatever the system asks for next needs a bound app.
        thread.handler.post(() -> thread.bind(facts, instrumenting));
        Thread reader = new Thread(thread::listen, "Binder:system");
        reader.setDaemon(true);
        reader.start();
        Looper.loop();
    }

    static ActivityThread current() {
        return current;
    }

    SystemLink link() {
        return link;
    }

    /** Ends the process and lets the activity manager see that it did. */
    static void exit(int code) {
        Runtime.getRuntime().halt(code);
    }

    private void bind(Map<String, String> facts, Map<String, String> instrumenting) {
        ApplicationInfo info = new ApplicationInfo(facts);
        ClassLoader loader =
                new PathClassLoader(
                        facts.get("classes"), info.sourceDir, info.nativeLibraryDir, classLoader());
        Thread.currentThread().setContextClassLoader(loader);
        ContextImpl context = new ContextImpl(info, loader, facts);
        try {
            String name = facts.get("instrumentation");
            if (!name.isEmpty()) {
                instrumentation = (Instrumentation) loader.loadClass(name).getDeclaredConstructor()
                        .newInstance();
            }
            instrumentation.init(this, context);
            String className = info.className == null ? "android.app.Application" : info.className;
            application = instrumentation.newApplication(loader, className, context);
            context.setApplication(application);
            if (!name.isEmpty()) {
                instrumentation.onCreate(bundle(instrumenting));
            }
            instrumentation.callApplicationOnCreate(application);
        } catch (ReflectiveOperationException problem) {
            throw new IllegalStateException("cannot start " + info.packageName, problem);
        }
    }

    private void launch(String name, Map<String, String> extras) {
        try {
            Intent intent = new Intent(Intent.ACTION_MAIN);
            extras.forEach(intent::putExtra);
            Activity activity =
                    instrumentation.newActivity(application.getClassLoader(), name, intent);
            activity.attach(application, intent);
            instrumentation.callActivityOnCreate(activity, null);
            activity.performStart();
            activity.performResume();
        } catch (ReflectiveOperationException problem) {
            throw new IllegalStateException("cannot show " + name, problem);
        }
    }

    /** Frames of the system become work of the main thread; the system's end is the app's. */
    private void listen() {
        try {
            while (true) {
                SystemLink.Received received = link.receive();
                if (received.kind == SystemLink.TO_APP_LAUNCH_ACTIVITY) {
                    String name = received.text();
                    Map<String, String> extras = received.bundle();
                    handler.post(() -> launch(name, extras));
                }
            }
        } catch (EOFException closed) {
            exit(0);
        } catch (IOException problem) {
            exit(1);
        }
    }

    private void die(Thread thread, Throwable problem) {
        try {
            String packageName = application == null ? "?" : application.getPackageName();
            Log.crash(
                    "FATAL EXCEPTION: " + thread.getName() + "\nProcess: " + packageName
                            + ", PID: " + Process.myPid() + "\n"
                            + Log.getStackTraceString(problem));
            link.sendException(problem);
        } catch (IOException | RuntimeException ignored) {
            // The system is gone; nobody is left to tell.
        } finally {
            exit(KILLED_BY_EXCEPTION);
        }
    }

    private static Bundle bundle(Map<String, String> values) {
        Bundle bundle = new Bundle();
        values.forEach(bundle::putString);
        return bundle;
    }

    private static ClassLoader classLoader() {
        return ActivityThread.class.getClassLoader();
    }
}
