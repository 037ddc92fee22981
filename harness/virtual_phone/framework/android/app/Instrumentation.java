package android.app;

import android.content.ComponentName;
import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.os.Looper;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;

/** Watches and drives an app from inside its process; {@code am instrument} starts it. */
public class Instrumentation {
    private ActivityThread thread;
    private Context context;

    final void init(ActivityThread thread, Context context) {
        this.thread = thread;
        this.context = context;
    }

    public void onCreate(Bundle arguments) {}

    public void start() {
        new Thread(this::onStart, "Instr: " + getClass().getName()).start();
    }

    public void onStart() {}

    public boolean onException(Object where, Throwable problem) {
        return false;
    }

    public void sendStatus(int resultCode, Bundle results) {
        try {
            thread.link().sendStatus(resultCode, results);
        } catch (IOException problem) {
            throw new IllegalStateException("the system is gone", problem);
        }
    }

    public void addResults(Bundle results) {
        throw new UnsupportedOperationException("addResults");
    }

    /** Reports the end. The system then ends the whole app, so this does not return. */
    public void finish(int resultCode, Bundle results) {
        onDestroy();
        try {
            thread.link().sendFinish(resultCode, results);
            Thread.sleep(Long.MAX_VALUE);
        } catch (IOException problem) {
            throw new IllegalStateException("the system is gone", problem);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    public void onDestroy() {}

    public Context getContext() {
        return context;
    }

    public Context getTargetContext() {
        return context;
    }

    public ComponentName getComponentName() {
        return new ComponentName(context.getPackageName(), getClass().getName());
    }

    public String getProcessName() {
        return context.getPackageName();
    }

    public void runOnMainSync(Runnable work) {
        if (Looper.myLooper() == Looper.getMainLooper()) {
            throw new RuntimeException("This method can not be called from the main thread");
        }
        CountDownLatch done = new CountDownLatch(1);
        new android.os.Handler(Looper.getMainLooper()).post(() -> {
            work.run();
            done.countDown();
        });
        try {
            done.await();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    public void waitForIdleSync() {
        runOnMainSync(() -> {});
    }

    public Application newApplication(ClassLoader loader, String className, Context context)
            throws InstantiationException, IllegalAccessException, ClassNotFoundException {
        Application application = (Application) instance(loader, className);
        application.attachBaseContext(context);
        return application;
    }

    public Activity newActivity(ClassLoader loader, String className, Intent intent)
            throws InstantiationException, IllegalAccessException, ClassNotFoundException {
        return (Activity) instance(loader, className);
    }

    public void callApplicationOnCreate(Application application) {
        application.onCreate();
    }

    public void callActivityOnCreate(Activity activity, Bundle state) {
        activity.onCreate(state);
    }

    private static Object instance(ClassLoader loader, String name)
            throws InstantiationException, IllegalAccessException, ClassNotFoundException {
        try {
            return loader.loadClass(name).getDeclaredConstructor().newInstance();
        } catch (NoSuchMethodException problem) {
            throw new InstantiationException(name + " has no constructor without parameters");
        } catch (java.lang.reflect.InvocationTargetException problem) {
            throw new IllegalStateException(problem.getCause());
        }
    }
}
