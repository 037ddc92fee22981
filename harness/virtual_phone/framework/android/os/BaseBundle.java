package android.os;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/** Values by their names. A value of another type than asked for counts as missing. */
public class BaseBundle {
    final Map<String, Object> values = new LinkedHashMap<>();

    BaseBundle() {}

    public int size() {
        return values.size();
    }

    public boolean isEmpty() {
        return values.isEmpty();
    }

    public void clear() {
        values.clear();
    }

    public boolean containsKey(String key) {
        return values.containsKey(key);
    }

    public Object get(String key) {
        return values.get(key);
    }

    public void remove(String key) {
        values.remove(key);
    }

    public Set<String> keySet() {
        return values.keySet();
    }

    public void putString(String key, String value) {
        values.put(key, value);
    }

    public void putInt(String key, int value) {
        values.put(key, value);
    }

    public void putLong(String key, long value) {
        values.put(key, value);
    }

    public void putDouble(String key, double value) {
        values.put(key, value);
    }

    public void putBoolean(String key, boolean value) {
        values.put(key, value);
    }

    public void putStringArray(String key, String[] value) {
        values.put(key, value);
    }

    public String getString(String key) {
        return typed(key, String.class, null);
    }

    public String getString(String key, String defaultValue) {
        return typed(key, String.class, defaultValue);
    }

    public int getInt(String key) {
        return getInt(key, 0);
    }

    public int getInt(String key, int defaultValue) {
        return typed(key, Integer.class, defaultValue);
    }

    public long getLong(String key) {
        return getLong(key, 0);
    }

    public long getLong(String key, long defaultValue) {
        return typed(key, Long.class, defaultValue);
    }

    public double getDouble(String key) {
        return getDouble(key, 0);
    }

    public double getDouble(String key, double defaultValue) {
        return typed(key, Double.class, defaultValue);
    }

    public boolean getBoolean(String key) {
        return getBoolean(key, false);
    }

    public boolean getBoolean(String key, boolean defaultValue) {
        return typed(key, Boolean.class, defaultValue);
    }

    public String[] getStringArray(String key) {
        return typed(key, String[].class, null);
    }

    private <T> T typed(String key, Class<T> kind, T defaultValue) {
        Object value = values.get(key);
        return kind.isInstance(value) ? kind.cast(value) : defaultValue;
    }

    @Override
    public String toString() {
        return "Bundle[" + new ArrayList<>(values.entrySet()) + "]";
    }
}
