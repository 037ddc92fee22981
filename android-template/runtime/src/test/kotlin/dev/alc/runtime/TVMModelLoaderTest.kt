package dev.alc.runtime

import dev.alc.engine.Availability
import dev.alc.engine.EngineException
import dev.alc.engine.InvalidRequestException
import dev.alc.engine.LoadOptions
import dev.alc.engine.LoadProgress
import dev.alc.engine.LoadStage
import dev.alc.engine.MemoryBudgetException
import dev.alc.engine.ModelDamagedException
import dev.alc.engine.ModelIncompatibleException
import dev.alc.engine.ModelNotFoundException
import dev.alc.engine.StorageException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancel
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test
import java.io.File
import java.util.concurrent.Executors

/** Whole packages load from a folder or a stamp; everything else is refused by name. */
class TVMModelLoaderTest {
    @Before
    fun needPackage() {
        TestFiles.packageFolder()
    }

    @Test
    fun `a folder loads and says what it is`() {
        val stages = ArrayList<LoadProgress>()
        val model = load(TestFiles.packageFolder().path) { stages += it }
        model.use {
            val runtime = TestFiles.runtime()
            assertEquals("tvm ${runtime.version}", it.info.runtime)
            assertEquals(runtime.abi, it.info.abi)
            assertEquals("cpu/${variants().first { one -> runs(one) }.name}", it.info.backend)
            assertEquals(Cores().bigCount().coerceAtMost(4), it.info.threads)
            assertTrue(it.info.weightsBytes > 0)
            val tokens = it.cache.capacityTokens
            assertTrue(it.cache.allocatedBytes >= it.info.kv.bytesPerToken * tokens)
            assertTrue(it.tokenizer.vocabSize <= it.info.vocabSize)
        }
        assertEquals(LoadStage.entries.toList(), stages.map { it.stage }.distinct())
        for ((_, reports) in stages.groupBy { it.stage }) {
            assertEquals(reports.map { it.doneBytes }.sorted(), reports.map { it.doneBytes })
            assertEquals(reports.last().totalBytes, reports.last().doneBytes)
        }
    }

    @Test
    fun `a model on the big cores only computes the same`() {
        val (free, bound) = listOf(false, true).map { only ->
            val options = LoadOptions(threads = 2, bigCoresOnly = only)
            load(TestFiles.packageFolder().path, options).use { model ->
                model.openSession().use { session ->
                    FloatArray(model.info.vocabSize).also { session.prefill(intArrayOf(1, 2, 3)).get(it) }.asList()
                }
            }
        }
        assertEquals(free, bound)
    }

    @Test
    fun `a deployment's stamp loads from blobs`() {
        val source = TestFiles.packageFolder()
        val stamp = File(TestFiles.temporaryFolder(), "model.json")
        stamp.writeText(stampOf(source).toString())
        load(stamp.path).use { assertEquals("0123abcd", it.info.packageId) }
    }

    @Test
    fun `full hashes are checked where asked for`() {
        val folder = TestFiles.altered()
        load(folder.path, LoadOptions(verifyHashes = true)).close()
        TestFiles.replace(File(folder, "params_shard_0.bin")) { bytes ->
            bytes.also { it[bytes.size / 2] = (it[bytes.size / 2] + 1).toByte() }
        }
        load(folder.path).close()
        refused<ModelDamagedException>("sha256", folder, LoadOptions(verifyHashes = true))
    }

    @Test
    fun `a truncated file is refused`() {
        val folder = TestFiles.altered()
        TestFiles.replace(File(folder, "params_shard_0.bin")) { it.copyOf(it.size - 1) }
        refused<ModelDamagedException>("bytes instead of", folder)
    }

    @Test
    fun `a missing file is refused`() {
        val folder = TestFiles.altered()
        File(folder, "tensor-cache.json").delete()
        refused<ModelNotFoundException>("tensor-cache.json", folder)
        refused<ModelNotFoundException>("there is no model", File("/no/such/folder"))
        refused<ModelNotFoundException>("package.json", TestFiles.temporaryFolder())
    }

    @Test
    fun `a model that needs more memory than it may have is refused before it takes any`() {
        val folder = TestFiles.packageFolder()
        val info = load(folder.path).use { it.info }
        assertTrue(info.workBytes > 0)
        val tokens = info.contextWindow / 2
        val cache = info.kv.bytesPerToken * (tokens + info.kv.pageTokens)
        val needed = info.weightsBytes + info.workBytes + cache
        val half = LoadOptions(contextTokens = tokens, maxMemoryBytes = needed)
        load(folder.path, half).close()
        val stages = ArrayList<LoadStage>()
        val refusal = assertThrows(MemoryBudgetException::class.java) {
            load(folder.path, half.copy(maxMemoryBytes = needed - 1)) { stages += it.stage }
        }
        assertTrue(refusal.message, "cache of $tokens tokens" in refusal.message!!)
        assertEquals(emptyList<LoadStage>(), stages)
    }

    @Test
    fun `a package of another TVM is refused`() {
        val version = TestFiles.runtime().version
        val folder = TestFiles.altered { it.replace(version, "0.1.0") }
        refused<ModelIncompatibleException>("compiled by TVM 0.1.0", folder)
    }

    @Test
    fun `a package without code for this ABI is refused`() {
        val abi = TestFiles.runtime().abi
        val folder = TestFiles.altered { it.replace("\"$abi\"", "\"riscv64\"") }
        refused<ModelIncompatibleException>("it has code for", folder)
    }

    @Test
    fun `code for another processor is refused`() {
        val folder = TestFiles.altered {
            it.replace("\"ssse3\"", "\"quantum\"").replace("\"asimd\"", "\"quantum\"")
        }
        refused<ModelIncompatibleException>("quantum", folder)
    }

    @Test
    fun `every variant that this processor runs can be asked for`() {
        val folder = TestFiles.packageFolder()
        for (variant in variants()) {
            val options = LoadOptions(cpuVariant = variant.name)
            if (runs(variant)) {
                load(folder.path, options).use {
                    assertEquals("cpu/${variant.name}", it.info.backend)
                    it.openSession().use { session -> session.prefill(intArrayOf(1, 2)) }
                }
            } else {
                refused<InvalidRequestException>("which this processor lacks", folder, options)
            }
        }
        val best = variants().first { runs(it) }
        val lacking = TestFiles.altered {
            it.replace("\"${best.cpuFeatures.last()}\"", "\"quantum\"")
        }
        refused<InvalidRequestException>(
            "needs quantum",
            lacking,
            LoadOptions(cpuVariant = best.name),
        )
        val known = variants().joinToString { it.name }
        refused<InvalidRequestException>(
            "it has $known",
            folder,
            LoadOptions(cpuVariant = "armv4t"),
        )
    }

    @Test
    fun `a processor without the best variant's features gets the next one`() {
        val (best, next) = variants().filter { runs(it) }.also { assumeTrue(it.size > 1) }
        val feature = (best.cpuFeatures - next.cpuFeatures.toSet()).last()
        val folder = TestFiles.altered { it.replace("\"$feature\"", "\"quantum\"") }
        load(folder.path).use { assertEquals("cpu/${next.name}", it.info.backend) }
    }

    @Test
    fun `kernels for a GPU are refused by the name of their backend`() {
        val folder = TestFiles.altered {
            it.replace(Regex("\"backend\": *\"cpu\""), "\"backend\": \"opencl\"")
        }
        refused<ModelIncompatibleException>("compiled for opencl", folder)
    }

    @Test
    fun `another layout, schema or quantization is refused`() {
        refused<ModelIncompatibleException>(
            "layout",
            TestFiles.altered { it.replace("rows8/1", "rows9/1") },
        )
        refused<ModelIncompatibleException>(
            "schema",
            TestFiles.altered { it.replace("harness.package/2", "harness.package/1") },
        )
        val quantization = TestFiles.open().use { it.info.quantization }
        refused<ModelIncompatibleException>(
            "quantization",
            TestFiles.altered { it.replace("\"$quantization\"", "\"q3f16_1\"") },
        )
    }

    @Test
    fun `what is no description is damage`() {
        for (text in listOf("", "[]", "{", "{\"schema\":\"harness.package/2\"}", "\u0000")) {
            val problem = assertThrows(EngineException::class.java) {
                load(TestFiles.altered { text }.path)
            }
            val expected = problem is ModelDamagedException || problem is ModelIncompatibleException
            assertTrue("$problem", expected)
        }
    }

    @Test
    fun `a package cannot name files outside of its folder`() {
        val folder = TestFiles.altered {
            it.replace("\"params_shard_0.bin\"", "\"../params_shard_0.bin\"")
        }
        refused<ModelDamagedException>("must not name", folder)
    }

    @Test
    fun `weights outside of their file are refused`() {
        val folder = TestFiles.altered()
        val index = File(folder, "tensor-cache.json")
        val size = index.length()
        TestFiles.replace(index) { bytes ->
            val text = String(bytes)
            val first = Regex("(?<=\"byteOffset\": )[1-9][0-9]*").find(text)!!
            text.replaceRange(first.range, "9".repeat(first.value.length)).toByteArray()
        }
        assertEquals(size, index.length())
        assertThrows(EngineException::class.java) { load(folder.path) }
    }

    @Test
    fun `the library runs from a copy that nobody may write`() {
        load(TestFiles.packageFolder().path).close()
        val copies = TestFiles.codeCache.listFiles()!!.filter { it.name.endsWith("libmodel.so") }
        assertTrue(copies.isNotEmpty())
        for (copy in copies) {
            val bits = java.nio.file.Files.getPosixFilePermissions(copy.toPath())
            assertFalse(bits.any { it.name.endsWith("WRITE") })
        }
        assertTrue(TestFiles.codeCache.listFiles()!!.none { it.name.endsWith(".tmp") })
    }

    @Test
    fun `a copy that was altered or cut off is made anew`() {
        load(TestFiles.packageFolder().path).close()
        val copy = TestFiles.codeCache.listFiles()!!.single { it.name.endsWith("libmodel.so") }
        val bytes = copy.readBytes()
        val altered = bytes.copyOf().also { it[bytes.size / 2] = (it[bytes.size / 2] + 1).toByte() }
        for (wrong in listOf(altered, bytes.copyOf(bytes.size / 2), ByteArray(0))) {
            copy.delete()
            copy.writeBytes(wrong)
            load(TestFiles.packageFolder().path).close()
            assertArrayEquals(bytes, copy.readBytes())
        }
    }

    @Test
    fun `code of another hash than the package says is never executed`() {
        val folder = TestFiles.altered()
        TestFiles.replace(File(folder, "lib/${TestFiles.runtime().abi}/libmodel.so")) { bytes ->
            bytes.also { it[bytes.size / 2] = (it[bytes.size / 2] + 1).toByte() }
        }
        refused<ModelDamagedException>("sha256", folder)
        val stray = TestFiles.altered { it.replace(Regex("\"sha256\": *\"[^\"]{5}"), "\"sha256\": \"../..") }
        refused<ModelDamagedException>("is no sha256", stray)
    }

    @Test
    fun `a code cache that cannot be written is a storage error`() {
        for (place in listOf(File("/dev/null/cache"), File("/proc/cache"))) {
            val loader = TVMModelLoader(TestFiles.runtime(), place)
            val problem = assertThrows(StorageException::class.java) {
                runBlocking { loader.load(TestFiles.packageFolder().path) }
            }
            assertTrue(problem.message, "$place" in problem.message!!)
        }
    }

    @Test
    fun `a tokenizer with more tokens than the model is refused`() {
        val size = TestFiles.open().use { it.tokenizer.vocabSize }
        val folder = TestFiles.altered {
            it.replace(Regex("\"vocab_size\": *[0-9]+"), "\"vocab_size\": ${size - 1}")
        }
        refused<ModelIncompatibleException>("the tokenizer has $size tokens", folder)
    }

    @Test
    fun `sizes that the library was not compiled for are refused`() {
        fun withSize(name: String, value: Int) = TestFiles.altered {
            it.replace(Regex("\"$name\": *[0-9]+"), "\"$name\": $value")
        }
        val names = listOf(
            "vocab_size", "prefill_chunk", "context_window", "layers", "kv_heads", "head_dim", "page_size",
        )
        for (name in names) {
            refused<ModelIncompatibleException>("the library", withSize(name, 1_000_000))
            for (size in listOf(0, -1, Int.MAX_VALUE)) {
                refused<ModelDamagedException>("has a size outside", withSize(name, size))
            }
        }
    }

    @Test
    fun `a cache that no memory can hold is refused`() {
        for (tokens in listOf(Int.MAX_VALUE, Int.MAX_VALUE - 100, 1 shl 30)) {
            assertThrows(EngineException::class.java) {
                load(TestFiles.packageFolder().path, LoadOptions(contextTokens = tokens)).close()
            }
        }
        assertEquals(emptyList<String>(), TestFiles.mappedModelFiles())
    }

    @Test
    fun `a load that is cancelled at any report gives everything back`() {
        val path = TestFiles.packageFolder().path
        val options = LoadOptions(verifyHashes = true)
        var reports = 0
        load(path, options) { reports++ }.close()
        val handles = TestFiles.heldHandles()
        val open = TestFiles.openFiles()
        val threads = Thread.activeCount()
        for (last in 1..reports) {
            var seen = 0
            assertThrows(CancellationException::class.java) {
                runBlocking {
                    val loader = TVMModelLoader(TestFiles.runtime(), TestFiles.codeCache)
                    val scope = this
                    loader.load(path, options) { if (++seen == last) scope.cancel() }.close()
                    error("the load went on")
                }
            }
            assertEquals(last, seen)
            assertEquals(emptyList<String>(), TestFiles.mappedModelFiles())
        }
        assertEquals(handles, TestFiles.heldHandles())
        assertEquals(open, TestFiles.openFiles())
        // Another test's thread may have ended meanwhile.
        assertTrue("threads are left", Thread.activeCount() <= threads)
        load(path).close()
    }

    @Test
    fun `a load whose listener throws gives everything back`() {
        val handles = TestFiles.heldHandles()
        for (stage in LoadStage.entries) {
            val problem = assertThrows(IllegalStateException::class.java) {
                load(TestFiles.packageFolder().path) { if (it.stage == stage) error("no more") }
            }
            assertEquals("no more", problem.message)
        }
        assertEquals(handles, TestFiles.heldHandles())
        assertEquals(emptyList<String>(), TestFiles.mappedModelFiles())
    }

    @Test
    fun `packages load in the background, several at the same time`() {
        val path = TestFiles.packageFolder().path
        val cache = TestFiles.temporaryFolder()
        val answers = runBlocking {
            List(3) {
                val own = Executors.newSingleThreadExecutor().asCoroutineDispatcher()
                async(own) {
                    own.use {
                        TVMModelLoader(TestFiles.runtime(), cache).load(path).use { model ->
                            val logits = model.openSession().prefill(intArrayOf(1, 2, 3))
                            FloatArray(logits.limit()).also { logits.get(it) }
                        }
                    }
                }
            }.awaitAll()
        }
        for (answer in answers) assertArrayEquals(answers[0], answer, 0f)
        assertEquals(1, cache.listFiles()!!.size)
    }

    @Test
    fun `the strategy says what is missing`() {
        val good = MLCInferenceStrategy(TestFiles.codeCache, TestFiles.libraryPath())
        assertTrue(good.isAvailable() is Availability.Available)
        assertEquals("alc", good.name)
        val noCache = MLCInferenceStrategy(File("/dev/null/x"), TestFiles.libraryPath())
        val missing = (noCache.isAvailable() as Availability.Unavailable).missing
        assertTrue("$missing", missing.single().startsWith("a code cache"))
    }

    private fun load(
        path: String,
        options: LoadOptions = LoadOptions(),
        onProgress: (LoadProgress) -> Unit = {},
    ) = runBlocking {
        TVMModelLoader(TestFiles.runtime(), TestFiles.codeCache).load(path, options, onProgress)
    }

    private inline fun <reified T : EngineException> refused(
        part: String,
        folder: File,
        options: LoadOptions = LoadOptions(),
    ) {
        val problem = assertThrows(T::class.java) { load(folder.path, options).close() }
        assertTrue(problem.message, part in problem.message!!)
    }

    /** The variants of the package's library, the best first. */
    private fun variants(): List<CompiledVariant> =
        ModelFiles.open(TestFiles.packageFolder().path).description.stamp.targets
            .getValue(TestFiles.runtime().abi).variants

    private fun runs(variant: CompiledVariant): Boolean =
        TestFiles.runtime().cpuFeatures.containsAll(variant.cpuFeatures)

    private fun stampOf(folder: File): JsonObject {
        val description = Json.parseToJsonElement(File(folder, "package.json").readText())
        val listed = (description as JsonObject)["files"] as JsonObject
        fun placed(name: String, size: JsonPrimitive, sha256: JsonPrimitive) = JsonObject(
            mapOf(
                "path" to JsonPrimitive(File(folder, name).path),
                "size" to size,
                "sha256" to sha256,
            ),
        )
        val files = listed.mapValues { (name, facts) ->
            facts as JsonObject
            placed(name, facts["size"] as JsonPrimitive, facts["sha256"] as JsonPrimitive)
        } + ("package.json" to placed(
            "package.json",
            JsonPrimitive(File(folder, "package.json").length()),
            JsonPrimitive("0".repeat(64)),
        ))
        return JsonObject(
            mapOf(
                "schema" to JsonPrimitive("harness.installed-model/1"),
                "package" to JsonPrimitive("0123abcd"),
                "files" to JsonObject(files),
            ),
        )
    }
}
