package android.content;

/** What an activity is asked for; on this phone nothing but its own class. */
public class Intent {
    public Intent() {}
}
