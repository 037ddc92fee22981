package android.media;

/** Named by the code that D8 puts around closing resources; the phone has no media. */
public final class MediaDrm {
    private MediaDrm() {}

    public void release() {}
}
