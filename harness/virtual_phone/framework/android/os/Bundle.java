package android.os;

/** Values by their names, as parts of an app hand them to each other. */
public final class Bundle extends BaseBundle implements Cloneable, Parcelable {
    public static final Bundle EMPTY = new Bundle();

    public Bundle() {}

    public Bundle(Bundle other) {
        values.putAll(other.values);
    }

    public void putAll(Bundle other) {
        values.putAll(other.values);
    }

    public void putBundle(String key, Bundle value) {
        values.put(key, value);
    }

    public Bundle getBundle(String key) {
        Object value = values.get(key);
        return value instanceof Bundle ? (Bundle) value : null;
    }

    @Override
    public Object clone() {
        return new Bundle(this);
    }
}
