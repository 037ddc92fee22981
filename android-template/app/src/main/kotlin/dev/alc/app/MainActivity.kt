package dev.alc.app

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import dev.alc.provider.GenerationOptions
import dev.alc.provider.LLMConfig
import dev.alc.provider.LLMResponse
import dev.alc.provider.LocalLLMProvider
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking

/**
 * A prompt and the model's answer as it comes. The model is the one whose path the intent's
 * extra `model` names, such as the stamp file that a deployment wrote.
 */
public class MainActivity : Activity() {
    private val scope = CoroutineScope(Dispatchers.Default)
    private val options = GenerationOptions(updateIntervalMs = 50)
    private lateinit var provider: LocalLLMProvider
    private lateinit var prompt: EditText
    private lateinit var answer: TextView
    private lateinit var ask: Button
    private var running: Job? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        provider = LocalLLMProvider(codeCacheDir)
        setContentView(views())
        val model = intent.getStringExtra("model")
        if (model == null) {
            answer.text = "No model: start this with the extra \"model\", the path of a package."
        } else {
            load(model)
        }
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        scope.launch { provider.trimMemory(level) }
    }

    override fun onDestroy() {
        scope.cancel()
        runBlocking { provider.cleanup() }
        super.onDestroy()
    }

    private fun views(): View {
        prompt = EditText(this).apply { hint = "Ask something" }
        ask = Button(this).apply {
            text = ASK
            isEnabled = false
            setOnClickListener { if (running == null) answer(prompt.text.toString()) else provider.stop() }
        }
        answer = TextView(this).apply { setTextIsSelectable(true) }
        return LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            addView(prompt)
            addView(ask)
            addView(ScrollView(context).apply { addView(answer) })
        }
    }

    private fun load(path: String) {
        answer.text = "Loading the model"
        scope.launch {
            val loaded = provider.initialize(LLMConfig(modelPath = path))
            runOnUiThread {
                loaded.onSuccess { answer.text = it.model }.onFailure { answer.text = it.message }
                ask.isEnabled = loaded.isSuccess
            }
        }
    }

    private fun answer(question: String) {
        answer.text = ""
        ask.text = "Stop"
        running = scope.launch {
            provider.generateResponse(question, options).collect { response ->
                runOnUiThread { show(response) }
            }
        }
    }

    private fun show(response: LLMResponse) {
        when (response) {
            is LLMResponse.Streaming -> answer.append(response.text)
            is LLMResponse.Complete -> idle()
            is LLMResponse.Error -> {
                answer.append(response.error.message)
                idle()
            }
        }
    }

    private fun idle() {
        running = null
        ask.text = ASK
    }

    private companion object {
        // The build without Gradle has no R class; this screen is for engineers.
        const val ASK = "Ask"
    }
}
