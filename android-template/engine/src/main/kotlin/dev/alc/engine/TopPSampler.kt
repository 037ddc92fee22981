package dev.alc.engine

import java.nio.FloatBuffer

/**
 * Chooses tokens from logits, by these steps in this order:
 *
 * | step | what it does | left out when |
 * |---|---|---|
 * | mask | tokens outside the given set become impossible | no set |
 * | logit bias | is added to the logits of the named tokens | empty |
 * | repetition penalty | divides positive, multiplies negative logits of tokens of prompt and answer | 1 |
 * | frequency and presence penalty | taken from logits of tokens of the answer: for each occurrence, and once | 0 |
 * | greedy | at temperature 0 the token with the largest logit is the answer | temperature above 0 |
 * | temperature | divides the logits; softmax makes probabilities of them | |
 * | top-k | keeps the k likeliest | 0 |
 * | top-p | keeps the fewest of the likeliest that reach this sum of probability | 1 |
 * | min-p | keeps those with this fraction of the likeliest one's probability | 0 |
 * | typical-p | keeps the fewest, of those whose information is nearest to the entropy, that reach this sum | 1 |
 * | draw | one token by the probabilities of those that are left | |
 *
 * What is asked for about single tokens comes first: a mask or a bias of minus infinity is then
 * final, as no later step makes an impossible token possible, and greedy answers heed it. The
 * bias is on the model's own logits, and the penalties see the biased ones, as in llama.cpp and
 * vLLM; frequency and presence count the answer only, as in OpenAI's API; temperature and filters
 * come in the order of Hugging Face's `generate`, for which models' recommended values are made.
 * Each filter sees the probabilities of what the ones before it left, which sum to 1 again.
 *
 * Of equal tokens the lower id counts as the better, everywhere. Each step takes linear time and
 * allocates nothing. Holds buffers of the vocabulary's size where it needs them; serves one sequence at a time
 * and is not safe for use from several threads.
 *
 * @param vocabSize number of logits.
 * @throws InvalidRequestException if the logit bias names a token that is not in the vocabulary.
 */
public class TopPSampler(private val options: SamplingOptions, private val vocabSize: Int) {
    private val random = SplitMix64(options.seed)
    private val biased = options.logitBias.keys.toIntArray()
    private val biases = options.logitBias.values.toFloatArray()
    private val penalties = Penalties.of(options, vocabSize)
    private val plain = biased.isEmpty() && penalties == null
    private val tops = Tops(vocabSize)
    private val row = FloatArray(Tops.PLACES)

    // A large vocabulary's take a megabyte, which a greedy answer with plain logits never needs.
    private val scores by lazy(LazyThreadSafetyMode.NONE) { FloatArray(vocabSize) }
    private val candidates = if (options.temperature > 0f) Candidates(scores) else null

    init {
        biased.find { it >= vocabSize }?.let {
            throw InvalidRequestException("logitBias names token $it; the vocabulary has $vocabSize")
        }
    }

    /** Takes note that [token], in the vocabulary, is part of the prompt. */
    public fun prompt(token: Int) {
        penalties?.prompt(token)
    }

    /** Takes note that [token], in the vocabulary, is the next one of the answer. */
    public fun accept(token: Int) {
        penalties?.accept(token)
    }

    /**
     * The next token, given the [source] logits (`vocabSize` floats from position 0; read only).
     * Does not [accept] it.
     *
     * @param allowed the tokens that may be chosen; null allows all.
     * @throws LogitsException if a logit is NaN or infinite, or no allowed token is possible.
     */
    public fun sample(source: FloatBuffer, allowed: TokenSet? = null): Int {
        val best = read(source, allowed)
        return if (candidates == null) best else filter(candidates, best).at(random.nextDouble())
    }

    /**
     * The probabilities that [sample] would draw from, for tests and displays: a map from token
     * to probability, in the order of the tokens. Does not draw. Throws as [sample] does.
     */
    public fun distribution(source: FloatBuffer, allowed: TokenSet? = null): Map<Int, Double> {
        val best = read(source, allowed)
        return if (candidates == null) mapOf(best to 1.0) else filter(candidates, best).probabilities()
    }

    /** Fills [scores] with the logits after bias, penalties and mask; returns the best token. */
    private fun read(source: FloatBuffer, allowed: TokenSet?): Int {
        if (source.limit() < vocabSize) {
            throw LogitsException("${source.limit()} logits for a vocabulary of $vocabSize")
        }
        source.position(0)
        val best = if (plain && allowed == null) readPlain(source) else readAdjusted(source, allowed)
        source.position(0)
        return best
    }

    /** Where nothing is done to logits, who does not draw needs no copy of them all. */
    private fun readPlain(source: FloatBuffer): Int {
        tops.clear()
        for (start in 0 until vocabSize step Tops.PLACES) {
            val count = minOf(Tops.PLACES, vocabSize - start)
            source.get(row, 0, count)
            if (candidates != null) row.copyInto(scores, start, endIndex = count)
            tops.raise(row, count)
        }
        check { source[it] }
        return best { source[it] }
    }

    private fun readAdjusted(source: FloatBuffer, allowed: TokenSet?): Int {
        val scores = scores
        source.get(scores, 0, vocabSize)
        for (index in biased.indices) scores[biased[index]] += biases[index]
        penalties?.applyTo(scores)
        findTops()
        // Before the mask: such logits are a fault.
        check { scores[it] }
        if (allowed != null) {
            allowed.forbidOthers(scores)
            findTops()
        }
        return best { scores[it] }
    }

    private fun findTops() {
        tops.clear()
        for (start in 0 until vocabSize step Tops.PLACES) {
            val count = minOf(Tops.PLACES, vocabSize - start)
            scores.copyInto(row, 0, start, start + count)
            tops.raise(row, count)
        }
    }

    private inline fun check(scores: (Int) -> Float) {
        // Negated, because the largest of some with a NaN is NaN.
        if (tops.largest < Float.POSITIVE_INFINITY) return
        for (id in 0 until vocabSize) {
            val logit = scores(id)
            if (!(logit < Float.POSITIVE_INFINITY)) throw LogitsException("the logit of token $id is $logit")
        }
    }

    private inline fun best(scores: (Int) -> Float): Int {
        if (tops.largest == Float.NEGATIVE_INFINITY) {
            throw LogitsException("no token is possible: all are forbidden or at minus infinity")
        }
        return tops.first(scores)
    }

    private fun filter(candidates: Candidates, best: Int): Candidates {
        // The division keeps the order but can make neighbours equal: the k best are taken before.
        if (options.topK > 0) candidates.fillBest(options.topK, tops.values) else candidates.fill()
        candidates.weigh(best, options.temperature)
        if (options.topP < 1f) candidates.keepNucleus(options.topP) else candidates.keepPossible()
        if (options.minP > 0f) candidates.keepRelative(options.minP)
        if (options.typicalP < 1f) candidates.keepTypical(options.typicalP)
        return candidates
    }
}
