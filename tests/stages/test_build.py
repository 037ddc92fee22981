"""build makes a runtime that phones can load, once, and names what is missing.

The library itself takes a minute or two to compile; it is kept in this checkout's `.harness`, so
that only the first run pays for it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import ExitCode, MissingTool
from harness.stages import build as stage
from harness.tools import cmake, elf, ndk
from harness.types import Abi, Libc, RuntimeBundle, Target

CHECKOUT = Path(__file__).resolve().parents[2]
BIONIC = CHECKOUT / "tests/transcripts/bionic-api23.txt"

# Names that only glibc has, and what the same sources call on Android instead.
ONLY_GLIBC = {
    # Macros of glibc's headers.
    "__ctype_tolower_loc": "tolower",
    "__ctype_toupper_loc": "toupper",
    "__errno_location": "__errno",
    "__fxstat": "fstat",
    "__isoc99_sscanf": "sscanf",
    # Under __ANDROID__ TVM's threads use this one.
    "pthread_setaffinity_np": "sched_setaffinity",
    # What the compiler makes of memcmp where the C library has it.
    "bcmp": "memcmp",
    # libc++, which the NDK builds for the API level that it is asked for.
    "aligned_alloc": "posix_memalign",
    "catclose": "",
    "catgets": "",
    "catopen": "",
    "strtod_l": "strtod",
    "strtof_l": "strtof",
}


@pytest.fixture(scope="module", params=list(Abi), ids=str)
def bundle(request: pytest.FixtureRequest) -> RuntimeBundle:
    return stage.build(Target(request.param, Libc.GLIBC), CHECKOUT)


@pytest.fixture(scope="module")
def bionic() -> set[str]:
    lines = BIONIC.read_text().splitlines()
    return {line.split()[1] for line in lines if not line.startswith("#")}


def test_only_the_jni_entry_and_what_models_import_is_visible(bundle: RuntimeBundle) -> None:
    exports = elf.read(bundle.library).exports
    assert "JNI_OnLoad" in exports
    for name in ("TVMFFIErrorSetRaisedFromCStrParts", "TVMBackendParallelLaunch"):
        assert name in exports
    strangers = {name for name in exports if not name.startswith(("TVMFFI", "TVMBackend"))}
    assert strangers == {"JNI_OnLoad"}


def test_models_find_c_and_mathematics_through_the_runtime(bundle: RuntimeBundle) -> None:
    facts = elf.read(bundle.library)
    assert facts.soname == "libalc_runtime.so"
    assert {"libc.so.6", "libm.so.6"} <= set(facts.needed)


def test_segments_fit_pages_of_16_kb(bundle: RuntimeBundle) -> None:
    assert min(elf.read(bundle.library).alignments) >= 16384


def test_symbols_are_split_off_and_kept_under_the_same_build_id(bundle: RuntimeBundle) -> None:
    library, symbols = elf.read(bundle.library), elf.read(bundle.symbols)
    assert library.stripped and not symbols.stripped
    assert library.build_id and library.build_id == symbols.build_id
    assert library.exports == symbols.exports
    assert bundle.library.stat().st_size < 5 << 20


def test_the_building_machine_leaves_no_trace(bundle: RuntimeBundle) -> None:
    assert str(CHECKOUT).encode() not in bundle.library.read_bytes()


def test_every_function_that_the_runtime_calls_is_on_a_phone(
    bundle: RuntimeBundle, bionic: set[str]
) -> None:
    facts = elf.read(bundle.library)
    loader = {"__tls_get_addr"}  # emulated by the NDK's compiler
    missing = (facts.imports | facts.weak_imports) - bionic - loader
    assert missing <= set(ONLY_GLIBC), sorted(missing - set(ONLY_GLIBC))
    assert {name for name in ONLY_GLIBC.values() if name} <= bionic


def test_every_function_that_a_model_may_call_is_on_a_phone(bionic: set[str]) -> None:
    from harness.compiler import library

    assert bionic >= library._FROM_C, sorted(library._FROM_C - bionic)


def test_an_unchanged_runtime_is_not_built_again(
    bundle: RuntimeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cmake, "configure", lambda *_: pytest.fail("it was configured again"))
    assert stage.build(bundle.target, CHECKOUT) == bundle


def test_a_stopped_build_leaves_no_result_and_keeps_its_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configure(builder: object, source: Path, folder: Path, settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "object.o").touch()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cmake, "configure", configure)
    monkeypatch.setattr(cmake, "build", stop)
    with pytest.raises(KeyboardInterrupt):
        stage.build(Target(Abi.ARM64, Libc.GLIBC), tmp_path)
    assert not list(tmp_path.glob(".harness/build/build/*/manifest.json"))
    assert len(list(tmp_path.glob(".harness/build/build-objects/*/object.o"))) == 1


def test_a_real_phone_without_an_ndk_is_a_missing_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ndk.VARIABLES, *ndk.SDK_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MissingTool) as caught:
        stage.build(Target(Abi.ARM64, Libc.BIONIC), tmp_path)
    assert caught.value.exit_code == ExitCode.MISSING_TOOL == 3
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.ndk
def test_the_ndk_builds_what_a_phone_loads(tmp_path: Path) -> None:
    try:
        ndk.find()
    except MissingTool as missing:
        pytest.skip(str(missing))
    made = stage.build(Target(Abi.ARM64, Libc.BIONIC), CHECKOUT)
    facts = elf.read(made.library)
    assert {"libc.so", "libm.so", "liblog.so"} <= set(facts.needed)
    assert "libc++_shared.so" not in facts.needed


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_the_core_of_the_binding_is_clean_under_sanitizers(
    sanitizers: str, sanitized: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = sanitized(sanitizers)
    # Some kernels hand out addresses that ThreadSanitizer's shadow has no place for.
    fixed = ["setarch", "--addr-no-randomize"] if sanitizers == "thread" else []
    done = subprocess.run([*fixed, folder / "core_test", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout and "WARNING" not in done.stderr
