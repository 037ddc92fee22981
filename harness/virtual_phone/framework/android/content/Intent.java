package android.content;

import android.os.Bundle;
import android.os.Parcelable;

/** What an activity is asked for: its extras. */
public class Intent implements Parcelable, Cloneable {
    public static final String ACTION_MAIN = "android.intent.action.MAIN";

    private final Bundle extras = new Bundle();
    private String action;

    public Intent() {}

    public Intent(String action) {
        this.action = action;
    }

    public String getAction() {
        return action;
    }

    public Intent setAction(String action) {
        this.action = action;
        return this;
    }

    public Bundle getExtras() {
        return extras.isEmpty() ? null : new Bundle(extras);
    }

    public boolean hasExtra(String name) {
        return extras.containsKey(name);
    }

    public Intent putExtra(String name, String value) {
        extras.putString(name, value);
        return this;
    }

    public String getStringExtra(String name) {
        return extras.getString(name);
    }

    @Override
    public Object clone() {
        Intent copy = new Intent(action);
        copy.extras.putAll(extras);
        return copy;
    }
}
