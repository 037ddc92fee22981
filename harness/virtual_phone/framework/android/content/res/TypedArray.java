package android.content.res;

/** Named by the code that D8 puts around closing resources; the phone has no styles. */
public class TypedArray {
    TypedArray() {}

    public void recycle() {}
}
