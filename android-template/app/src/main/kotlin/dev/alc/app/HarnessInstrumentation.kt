package dev.alc.app

import android.app.Activity
import android.app.Instrumentation
import android.os.Bundle
import android.os.Debug
import android.os.Process
import android.util.Log
import dev.alc.engine.EngineException
import dev.alc.engine.InvalidRequestException
import dev.alc.runtime.MLCInferenceStrategy
import dev.alc.runtime.TVMRuntime
import kotlinx.coroutines.runBlocking
import java.io.File
import java.io.IOException

/**
 * The host's one door to the app: `am instrument -w -r -e protocol 1 -e run RUN -e request FILE`.
 *
 * It reads the request, leaves a result in the app's media folder, which the shell may read, and
 * says where. It has no tests: what is right is decided on the host.
 */
public class HarnessInstrumentation : Instrumentation() {
    private var arguments = Bundle()

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        this.arguments = arguments ?: Bundle()
        start()
    }

    override fun onStart() {
        super.onStart()
        val results = Bundle()
        try {
            serve(results)
        } catch (failure: Throwable) {
            // Whatever it is, the host gets it in words; an app that dies tells nothing.
            Log.e(TAG, "the request failed", failure)
            results.putString("ok", "false")
            val kind = (failure as? EngineException)?.kind ?: failure.javaClass.simpleName
            results.putString("error", "$kind: ${failure.message}")
        }
        finish(Activity.RESULT_OK, results)
    }

    private fun serve(results: Bundle) {
        val asked = arguments.getString("protocol")
        if (asked != DoorRequest.PROTOCOL.toString()) {
            throw InvalidRequestException("protocol: app speaks ${DoorRequest.PROTOCOL}, host asked $asked")
        }
        val path = arguments.getString("request") ?: throw InvalidRequestException("there is no request")
        val request = DoorRequest.read(File(path))
        val context = targetContext
        val name = context.packageName
        val door = Door(
            strategy = MLCInferenceStrategy(context.codeCacheDir),
            application = name,
            version = context.packageManager.getPackageInfo(name, 0).versionName ?: "",
            pssKb = ::pssKb,
            heldHandles = { TVMRuntime.load().heldHandles },
            sink = { line -> Log.i(TAG, line) },
            progress = ::say,
            pid = Process.myPid(),
            listen = ::LocalChatListener,
        )
        val outcome = runBlocking { door.serve(request, File(folder(), request.run)) }
        results.putString("ok", (outcome.error == null).toString())
        results.putString("result", outcome.file.path)
        outcome.error?.let { results.putString("error", "${it.kind}: ${it.message}") }
    }

    /** The media folder: of the app's folders the one that the shell may read on every Android. */
    @Suppress("DEPRECATION")
    private fun folder(): File {
        val media = targetContext.externalMediaDirs.firstOrNull()
            ?: throw IOException("the shared storage is not there")
        return File(media, "harness")
    }

    private fun say(text: String) {
        sendStatus(IN_PROGRESS, Bundle().apply { putString("harness", text) })
    }

    private companion object {
        const val TAG = "LMX"
        const val IN_PROGRESS = 2

        /** This process's proportional set size in KiB. The rollup is exact; Android 8 lacks it. */
        fun pssKb(): Long = try {
            File("/proc/self/smaps_rollup").useLines { lines ->
                lines.first { it.startsWith("Pss:") }.filter(Char::isDigit).toLong()
            }
        } catch (_: IOException) {
            Debug.getPss()
        }
    }
}
