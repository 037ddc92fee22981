package dev.alc.suites

import android.app.Activity
import android.app.Instrumentation
import android.os.Bundle
import org.junit.runner.Description
import org.junit.runner.JUnitCore
import org.junit.runner.Request
import org.junit.runner.notification.Failure
import org.junit.runner.notification.RunListener
import java.io.File

/**
 * Runs the modules' own JUnit suites on a device:
 * `am instrument -w -r -e class NAME,NAME -e alc.package FOLDER`.
 *
 * It reports as AndroidX's runner does (a status when a test starts and one when it ends), so that
 * whatever reads that reads this. Arguments whose names begin with `alc.` become system
 * properties, which the suites ask for their model package.
 */
public class SuitesInstrumentation : Instrumentation() {
    private var arguments = Bundle()

    override fun onCreate(arguments: Bundle?) {
        super.onCreate(arguments)
        this.arguments = arguments ?: Bundle()
        start()
    }

    override fun onStart() {
        super.onStart()
        for (name in arguments.keySet().filter { it.startsWith("alc.") }) {
            System.setProperty(name, arguments.getString(name) ?: continue)
        }
        // The APK asks for its libraries to be unpacked, so there is a file to load by its path.
        val library = File(targetContext.applicationInfo.nativeLibraryDir, "libalc_runtime.so")
        System.setProperty("alc.runtime", library.path)
        System.setProperty("java.io.tmpdir", targetContext.cacheDir.path)
        val names = arguments.getString("class").orEmpty().split(',').filter { it.isNotEmpty() }
        val core = JUnitCore()
        core.addListener(Reporter())
        val result = core.run(Request.classes(*names.map { Class.forName(it) }.toTypedArray()))
        val summary = Bundle()
        summary.putString("tests", result.runCount.toString())
        summary.putString("failures", result.failureCount.toString())
        finish(Activity.RESULT_OK, summary)
    }

    private inner class Reporter : RunListener() {
        private var outcome = OK
        private var stack = ""

        override fun testStarted(description: Description) {
            outcome = OK
            stack = ""
            send(description, START)
        }

        override fun testFailure(failure: Failure) {
            outcome = FAILED
            stack = failure.trace
            // A class that cannot be set up fails without a test that started.
            if (failure.description.isSuite) send(failure.description, FAILED)
        }

        override fun testAssumptionFailure(failure: Failure) {
            outcome = ASSUMPTION_FAILED
            stack = failure.message.orEmpty()
            if (failure.description.isSuite) send(failure.description, ASSUMPTION_FAILED)
        }

        override fun testIgnored(description: Description) {
            send(description, IGNORED)
        }

        override fun testFinished(description: Description) {
            send(description, outcome)
        }

        private fun send(description: Description, code: Int) {
            val status = Bundle()
            status.putString("class", description.className)
            status.putString("test", description.methodName.orEmpty())
            if (stack.isNotEmpty()) status.putString("stack", stack)
            sendStatus(code, status)
        }
    }

    /** The codes of AndroidX's runner. */
    private companion object {
        const val START = 1
        const val OK = 0
        const val FAILED = -2
        const val IGNORED = -3
        const val ASSUMPTION_FAILED = -4
    }
}
