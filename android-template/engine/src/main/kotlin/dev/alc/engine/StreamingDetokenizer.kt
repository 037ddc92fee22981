package dev.alc.engine

import java.nio.ByteBuffer
import java.nio.CharBuffer
import java.nio.charset.CodingErrorAction

/**
 * Turns tokens into text as they come, whole characters only.
 *
 * A token's bytes may end inside a character; those bytes wait for the next token. Bytes that
 * can no longer become a character are given out as U+FFFD. The texts that [add] and [finish]
 * return, joined, are the text of all tokens. It does not hold back letters for their combining
 * marks. Not safe for use from several threads.
 *
 * @param skipSpecial whether control tokens add no text.
 */
public class StreamingDetokenizer(
    private val tokenizer: Tokenizer,
    private val skipSpecial: Boolean = true,
) {
    private val decoder = Charsets.UTF_8.newDecoder()
        .onMalformedInput(CodingErrorAction.REPLACE)
        .onUnmappableCharacter(CodingErrorAction.REPLACE)
    private var bytes = ByteBuffer.allocate(64)
    private var chars = CharBuffer.allocate(64)
    private var previous = Tokenizer.NO_TOKEN

    /** Whether bytes wait for the rest of a character. */
    internal val midCharacter: Boolean
        get() = bytes.position() > 0

    /** The text that [token] completes; empty if it ends inside a character or has no text. */
    public fun add(token: Int): String {
        if (skipSpecial && tokenizer.isSpecial(token)) return ""
        val piece = tokenizer.tokenBytes(token, previous)
        previous = token
        if (bytes.remaining() < piece.size) {
            bytes.flip()
            bytes = ByteBuffer.allocate(2 * (bytes.remaining() + piece.size)).put(bytes)
        }
        bytes.put(piece)
        return drain(end = false)
    }

    /** The text of bytes that still waited for the rest of a character, as U+FFFD. */
    public fun finish(): String {
        val text = drain(end = true)
        decoder.reset()
        previous = Tokenizer.NO_TOKEN
        return text
    }

    private fun drain(end: Boolean): String {
        bytes.flip()
        if (chars.capacity() < bytes.remaining()) chars = CharBuffer.allocate(2 * bytes.remaining())
        chars.clear()
        // A byte of UTF-8 never becomes more than one char, so this cannot overflow.
        decoder.decode(bytes, chars, end)
        bytes.compact()
        chars.flip()
        return chars.toString()
    }
}
