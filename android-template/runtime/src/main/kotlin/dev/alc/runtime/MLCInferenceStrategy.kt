package dev.alc.runtime

import dev.alc.engine.Availability
import dev.alc.engine.InferenceStrategy
import dev.alc.engine.ModelLoader
import dev.alc.engine.StrategyUnavailableException
import java.io.File
import java.io.IOException

/**
 * Runs packages in MLC's formats with the TVM runtime that the app carries, on the CPU.
 *
 * It neither needs nor uses MLC-LLM's own runtime.
 *
 * @param codeCache a folder of the app in which libraries may be executed, such as Android's
 *   `Context.getCodeCacheDir()`.
 * @param nativeLibrary the path of `libalc_runtime.so`; null lets the class loader find it.
 */
public class MLCInferenceStrategy(
    private val codeCache: File,
    private val nativeLibrary: String? = null,
) : InferenceStrategy {
    override val name: String = "alc"

    override fun isAvailable(): Availability {
        val missing = ArrayList<String>()
        val runtime = try {
            TVMRuntime.load(nativeLibrary)
        } catch (problem: StrategyUnavailableException) {
            missing += "the native runtime: ${problem.message}"
            null
        }
        cacheProblem()?.let { missing += "a code cache: $it" }
        return if (runtime == null || missing.isNotEmpty()) {
            Availability.Unavailable(missing)
        } else {
            Availability.Available(runtime.backend)
        }
    }

    /** @throws StrategyUnavailableException if the native runtime cannot be loaded here. */
    override fun loader(): ModelLoader = TVMModelLoader(TVMRuntime.load(nativeLibrary), codeCache)

    private fun cacheProblem(): String? = try {
        codeCache.mkdirs()
        File.createTempFile("probe", ".tmp", codeCache).delete()
        null
    } catch (problem: IOException) {
        "$codeCache cannot be written: ${problem.message}"
    } catch (problem: SecurityException) {
        "$codeCache cannot be written: ${problem.message}"
    }
}
