package dalvik.system;

import java.io.File;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;

/**
 * Loads an app's translated classes, its resources from the APK, and its native libraries from its
 * own folder.
 */
public class PathClassLoader extends URLClassLoader {
    private final File libraries;

    static {
        registerAsParallelCapable();
    }

    public PathClassLoader(
            String classes, String apk, String librarySearchPath, ClassLoader parent) {
        super(new URL[] {url(classes), url(apk)}, parent);
        libraries = new File(librarySearchPath);
    }

    @Override
    public String findLibrary(String name) {
        File file = new File(libraries, System.mapLibraryName(name));
        return file.isFile() ? file.getPath() : null;
    }

    private static URL url(String path) {
        try {
            return new File(path).toURI().toURL();
        } catch (MalformedURLException problem) {
            throw new IllegalArgumentException(path, problem);
        }
    }
}
