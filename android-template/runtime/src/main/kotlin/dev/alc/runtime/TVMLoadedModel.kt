package dev.alc.runtime

import dev.alc.engine.CachePool
import dev.alc.engine.ChatTemplate
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LifecycleException
import dev.alc.engine.LoadedModel
import dev.alc.engine.ModelInfo
import dev.alc.engine.ModelSession
import dev.alc.engine.Tokenizer
import java.nio.FloatBuffer

/** A [TVMModule] as the engine sees it, with what the package says of it. */
internal class TVMLoadedModel(
    private val module: TVMModule,
    override val info: ModelInfo,
    shape: ModelShape,
    override val tokenizer: Tokenizer,
    override val chatTemplate: ChatTemplate?,
    private val ahead: ReadAhead,
) : LoadedModel {
    override val cache: CachePool = shape.pool()

    override fun openSession(): ModelSession = Session(module, module.openSequence())

    override fun close(): Unit = ahead.use { module.close() }

    private class Session(private val module: TVMModule, private val sequence: Int) : ModelSession {
        private var closed = false

        override val length: Int
            get() = module.length(open())

        override fun prefill(tokens: IntArray): FloatBuffer = module.prefill(open(), tokens)

        override fun decode(token: Int): FloatBuffer = module.decode(open(), token)

        override fun verify(tokens: IntArray): FloatBuffer = module.verify(open(), tokens)

        override fun trim(newLength: Int) {
            val length = module.length(open())
            if (newLength !in 0..length) {
                throw InvalidRequestException("cannot keep $newLength of $length tokens")
            }
            module.popn(sequence, length - newLength)
        }

        override fun fork(): ModelSession = Session(module, module.fork(open()))

        override fun reset(): Unit = module.resetCache(open())

        override fun close() {
            if (closed) return
            module.closeSequence(sequence)
            closed = true
        }

        private fun open(): Int {
            if (closed) throw LifecycleException("the session is closed")
            return sequence
        }
    }
}
