package android.view;

import android.content.Context;

/** A part of a screen. It keeps its state; nothing is measured or drawn. */
public class View {
    public static final int VISIBLE = 0;
    public static final int INVISIBLE = 4;
    public static final int GONE = 8;

    private final Context context;
    private boolean enabled = true;
    private int visibility = VISIBLE;
    private OnClickListener listener;

    /** Is told of clicks. */
    public interface OnClickListener {
        void onClick(View view);
    }

    public View(Context context) {
        this.context = context;
    }

    public final Context getContext() {
        return context;
    }

    public boolean isEnabled() {
        return enabled;
    }

    public void setEnabled(boolean enabled) {
        this.enabled = enabled;
    }

    public int getVisibility() {
        return visibility;
    }

    public void setVisibility(int visibility) {
        this.visibility = visibility;
    }

    public void setPadding(int left, int top, int right, int bottom) {}

    public void setOnClickListener(OnClickListener listener) {
        this.listener = listener;
    }

    public boolean performClick() {
        if (listener == null) {
            return false;
        }
        listener.onClick(this);
        return true;
    }
}
