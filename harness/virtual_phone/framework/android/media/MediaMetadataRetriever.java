package android.media;

/** Named by the code that D8 puts around closing resources; the phone has no media. */
public class MediaMetadataRetriever {
    MediaMetadataRetriever() {}

    public void release() {}
}
