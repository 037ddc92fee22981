package android.os;

/** What Android can send between processes; here nothing leaves its process that way. */
public interface Parcelable {}
