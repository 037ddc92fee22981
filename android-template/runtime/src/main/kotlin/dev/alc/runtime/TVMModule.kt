package dev.alc.runtime

import dev.alc.engine.BackendException
import dev.alc.engine.CacheBudgetException
import dev.alc.engine.ContextFullException
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.IntBuffer

/**
 * A compiled model in TVM's virtual machine, with its weights and one pool of paged key/value
 * cache in which sequences of tokens live.
 *
 * It belongs to the thread that opened it: any other thread, and any call after [close], gets a
 * [LifecycleException]. Logits are views of native memory in native byte order, valid until the
 * next call of [prefill], [decode] or [verify], whatever the sequence.
 *
 * It does not sample, and it does not know what tokens mean. It is not finalized: without
 * [close] its memory stays taken.
 *
 * The constructor takes over the machine and the parameters, also where it throws.
 */
public class TVMModule internal constructor(
    private val runtime: TVMRuntime,
    private val shape: ModelShape,
    private val machine: ModelMachine,
    private val parameters: OwnedHandle,
) : AutoCloseable {
    private val ownership = Ownership("the model")
    private val frame = CallFrame()
    private val logits = LogitsView()
    private val sequences = HashMap<Int, Sequence>()
    private val owned = ArrayList<OwnedHandle>()
    private var nextSequence = 0

    private val beginForward = runtime.function("vm.builtin.kv_state_begin_forward")
    private val endForward = runtime.function("vm.builtin.kv_state_end_forward")
    private val addSequence = runtime.function("vm.builtin.kv_state_add_sequence")
    private val removeSequence = runtime.function("vm.builtin.kv_state_remove_sequence")
    private val forkSequence = runtime.function("vm.builtin.kv_state_fork_sequence")
    private val popSequence = runtime.function("vm.builtin.kv_state_popn")
    private val freePages =
        runtime.function("vm.builtin.attention_kv_cache_get_num_available_pages")
    private val reshape = runtime.function("vm.builtin.reshape")
    private val arrayItem = runtime.function("ffi.ArrayGetItem")
    private val allocate = runtime.function("runtime.TVMTensorAllocWithScope")

    private val embed: Long
    private val prefill: Long
    private val decode: Long
    private val verify: Long
    private val cache: Long
    private val oneToken: Long
    private val oneTokenView: IntBuffer
    private var hiddenSize = 0L

    init {
        try {
            embed = machine.function("embed")
            prefill = machine.function("prefill")
            decode = machine.function("decode")
            verify = machine.function("batch_verify")
            val create = machine.function("create_tir_paged_kv_cache")
            cache = native("cannot reserve the key/value cache") {
                own(
                    frame.begin()
                        .dims(shape.maxSequences.toLong())
                        .dims(shape.capacityTokens.toLong())
                        .dims(shape.prefillChunk.toLong())
                        .dims(shape.kv.pageTokens.toLong())
                        .dims(0)
                        .callForHandle(create),
                )
            }
            oneToken = native("cannot reserve the input") { own(tokenTensor(1)) }
            oneTokenView = native("cannot reserve the input") { tokenView(oneToken) }
        } catch (failure: Throwable) {
            releaseAll()
            throw failure
        }
        openModules.incrementAndGet()
    }

    /**
     * Opens an empty sequence and returns its id.
     *
     * @throws BackendException if as many are open as the cache was made for.
     */
    public fun openSequence(): Int {
        ownership.check()
        checkRoomForSequence()
        val id = nextSequence++
        native("cannot open a sequence") {
            frame.begin().handle(cache).int(id.toLong()).call(addSequence)
        }
        sequences[id] = Sequence()
        return id
    }

    /** Tokens in the cache of [sequence]. */
    public fun length(sequence: Int): Int {
        ownership.check()
        return entry(sequence).length
    }

    /**
     * Appends [tokens], 1 to the model's prefill chunk of them, and returns the logits after the
     * last one: as many floats as the vocabulary has tokens.
     *
     * @throws InvalidRequestException if there are too few or too many tokens, or one is unknown.
     * @throws ContextFullException if the sequence would be longer than the model's window.
     * @throws CacheBudgetException if the pool has no pages left; nothing is changed then.
     * @throws BackendException if the computation fails; the sequence is then only good for
     *   [resetCache] and [closeSequence].
     */
    public fun prefill(sequence: Int, tokens: IntArray): FloatBuffer =
        forward("prefill", prefill, sequence, tokens, 1)

    /** Appends one token and returns the logits after it. Throws as [prefill] does. */
    public fun decode(sequence: Int, token: Int): FloatBuffer {
        val entry = ready(sequence, 1)
        checkToken(token)
        oneTokenView.put(0, token)
        return run("decode", decode, sequence, entry, oneToken, 1, 1)
    }

    /**
     * Appends [tokens] as [prefill] does and returns the logits after each of them, row by row.
     * Throws as [prefill] does.
     */
    public fun verify(sequence: Int, tokens: IntArray): FloatBuffer =
        forward("verify", verify, sequence, tokens, tokens.size)

    /** Drops the newest [count] tokens of [sequence]. */
    public fun popn(sequence: Int, count: Int) {
        ownership.check()
        val entry = entry(sequence)
        if (entry.broken) throw broken(sequence)
        if (count !in 0..entry.length) {
            throw InvalidRequestException("cannot drop $count of ${entry.length} tokens")
        }
        if (count == 0) return
        native("cannot drop tokens") {
            frame.begin().handle(cache).int(sequence.toLong()).int(count.toLong()).call(popSequence)
        }
        entry.length -= count
    }

    /** Drops every token of [sequence], also after a failed computation. */
    public fun resetCache(sequence: Int) {
        ownership.check()
        val entry = entry(sequence)
        native("cannot reset the cache") {
            frame.begin().handle(cache).int(sequence.toLong()).call(removeSequence)
            frame.begin().handle(cache).int(sequence.toLong()).call(addSequence)
        }
        entry.length = 0
        entry.broken = false
    }

    /**
     * A new sequence that starts with the tokens of [sequence]; whole pages of cache are shared.
     *
     * @throws CacheBudgetException if the pool has no page left for what cannot be shared.
     * @throws BackendException if as many are open as the cache was made for.
     */
    public fun fork(sequence: Int): Int {
        ownership.check()
        val parent = entry(sequence)
        if (parent.broken) throw broken(sequence)
        checkRoomForSequence()
        // Whole pages are shared, a page that is not full is copied.
        checkPages(if (parent.length % shape.kv.pageTokens == 0) 0 else 1, "a fork")
        val id = nextSequence++
        native("cannot fork a sequence") {
            if (parent.length == 0) {
                frame.begin().handle(cache).int(id.toLong()).call(addSequence)
            } else {
                frame.begin().handle(cache).int(sequence.toLong()).int(id.toLong()).int(-1)
                    .call(forkSequence)
            }
        }
        sequences[id] = Sequence(parent.length)
        return id
    }

    /** Gives the cache of [sequence] back. */
    public fun closeSequence(sequence: Int) {
        ownership.check()
        entry(sequence)
        native("cannot close a sequence") {
            frame.begin().handle(cache).int(sequence.toLong()).call(removeSequence)
        }
        sequences.remove(sequence)
    }

    /** Releases cache, weights and code. Calling it twice does nothing. */
    override fun close() {
        if (!ownership.close()) return
        logits.retire()
        sequences.clear()
        releaseAll()
        if (openModules.decrementAndGet() == 0) {
            // TVM keeps freed memory for the next model of the same shapes; give it back instead.
            frame.begin().call(runtime.function("vm.builtin.memory_manager.clear"))
        }
    }

    private fun forward(
        what: String,
        function: Long,
        sequence: Int,
        tokens: IntArray,
        rows: Int,
    ): FloatBuffer {
        val entry = ready(sequence, tokens.size)
        tokens.forEach(::checkToken)
        val input = native(what) { tokenTensor(tokens.size) }
        try {
            native(what) { tokenView(input) }.put(tokens)
            return run(what, function, sequence, entry, input, tokens.size, rows)
        } finally {
            NativeBindings.release(input)
        }
    }

    /** One forward pass: embed, open the pass in the cache, compute, close the pass. */
    private fun run(
        what: String,
        function: Long,
        sequence: Int,
        entry: Sequence,
        tokens: Long,
        count: Int,
        rows: Int,
    ): FloatBuffer = native(what) {
        var embedded = 0L
        var batch = 0L
        var results = 0L
        // From here on the cache counts the new tokens, whether or not the pass succeeds.
        entry.broken = true
        try {
            embedded = frame.begin().handle(tokens).handle(parameters.handle).callForHandle(embed)
            if (hiddenSize == 0L) hiddenSize = rowSize(embedded)
            batch = frame.begin().handle(embedded).dims(1, count.toLong(), hiddenSize)
                .callForHandle(reshape)
            frame.begin().handle(cache).dims(sequence.toLong()).dims(count.toLong())
                .call(beginForward)
            results = frame.begin().handle(batch).handle(cache).handle(parameters.handle)
                .callForHandle(function)
            frame.begin().handle(cache).call(endForward)
            val tensor = frame.begin().handle(results).int(0).callForHandle(arrayItem)
            val view = logits.show(tensor, rows * shape.vocabSize)
            entry.length += count
            entry.broken = false
            view
        } finally {
            NativeBindings.release(results)
            NativeBindings.release(batch)
            NativeBindings.release(embedded)
        }
    }

    private fun ready(sequence: Int, count: Int): Sequence {
        ownership.check()
        val entry = entry(sequence)
        if (entry.broken) throw broken(sequence)
        if (count !in 1..shape.prefillChunk) {
            throw InvalidRequestException(
                "a pass takes 1 to ${shape.prefillChunk} tokens, not $count",
            )
        }
        val length = entry.length + count
        if (length > shape.contextWindow) {
            throw ContextFullException(
                "$length tokens do not fit the model's window of ${shape.contextWindow}",
            )
        }
        checkPages(pages(length) - pages(entry.length), "a pass of $count tokens")
        return entry
    }

    /** TVM notices a full pool only in the middle of a pass, when the sequence is spoiled. */
    private fun checkPages(wanted: Int, what: String) {
        if (wanted == 0) return
        val free = native("cannot count free pages") {
            frame.begin().handle(cache).callForInt(freePages)
        }
        if (free < wanted) {
            throw CacheBudgetException(
                "$what needs $wanted more pages of ${shape.kv.pageTokens} tokens, $free are free",
            )
        }
    }

    private fun pages(tokens: Int): Int = (tokens + shape.kv.pageTokens - 1) / shape.kv.pageTokens

    private fun checkRoomForSequence() {
        if (sequences.size >= shape.maxSequences) {
            throw BackendException(
                "${sequences.size} sequences are open already; the cache was made for no more",
            )
        }
    }

    private fun checkToken(token: Int) {
        if (token !in 0 until shape.vocabSize) {
            throw InvalidRequestException("$token is no token: ids are 0 to ${shape.vocabSize - 1}")
        }
    }

    private fun entry(sequence: Int): Sequence =
        sequences[sequence] ?: throw LifecycleException("sequence $sequence is closed")

    private fun broken(sequence: Int): BackendException =
        BackendException("sequence $sequence is spoiled by a failed computation: reset it")

    private fun tokenTensor(count: Int): Long = frame.begin()
        .dims(count.toLong()).type(DataType.INT32).device().none().callForHandle(allocate)

    private fun tokenView(tensor: Long): IntBuffer =
        NativeBindings.tensorBuffer(tensor).order(ByteOrder.nativeOrder()).asIntBuffer()

    private fun rowSize(tensor: Long): Long {
        val facts = LongArray(MAX_DIMENSIONS)
        return facts[NativeBindings.tensorShape(tensor, facts)]
    }

    private fun own(handle: Long): Long = handle.also { owned.add(OwnedHandle(it)) }

    private fun releaseAll() {
        owned.asReversed().forEach(OwnedHandle::close)
        owned.clear()
        parameters.close()
        machine.close()
    }

    private class Sequence(var length: Int = 0, var broken: Boolean = false)

    private companion object {
        private const val MAX_DIMENSIONS = 8
        private val openModules = java.util.concurrent.atomic.AtomicInteger()
    }
}
