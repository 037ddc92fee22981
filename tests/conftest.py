"""Fixtures for every test."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and that is no finding. In continuous integration the examples are the
# same each time, so that what fails there fails again where it is looked into.
settings.register_profile(
    "harness",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("harness")

# A run in the background of a script ignores Ctrl-C, and so would every child that a test stops so.
signal.signal(signal.SIGINT, signal.default_int_handler)

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def kotlin_jars() -> str:
    """The class path of the Kotlin modules, compiled once for each state of their sources."""
    from harness import resources
    from harness.errors import MissingTool
    from harness.stages.package.direct import compile_kotlin

    try:
        jars = compile_kotlin(resources.path("android-template"), CHECKOUT)
    except MissingTool as missing:
        pytest.skip(str(missing))
    return ":".join(str(path) for path in (*jars.own, *jars.libraries))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sanitized("address,undefined")`: the folder of the native binding built under sanitizers.

    It holds `core_test`, and `libalc_sanitized.so` for a Java machine. The runtime below the
    binding is the one that ships.
    """
    from harness import resources
    from harness.stages import build
    from harness.tools import cmake, jdk
    from harness.types import Abi, Libc, Target

    @functools.cache
    def make(sanitizers: str) -> Path:
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("there is no g++, whose sanitizers this needs")
        folder = tmp_path_factory.mktemp("sanitized")
        probe = folder / "probe.cc"
        probe.write_text("int main() { return 0; }\n")
        words = [compiler, f"-fsanitize={sanitizers}", str(probe), "-o", str(folder / "probe")]
        if subprocess.run(words, capture_output=True).returncode != 0:
            pytest.skip(f"this g++ comes without -fsanitize={sanitizers}")
        runtime = build.build(Target(Abi.X86_64, Libc.GLIBC), CHECKOUT)
        spec = importlib.util.find_spec("tvm_ffi")
        assert spec is not None and spec.origin is not None
        headers = jdk.find().home / "include"
        settings: dict[str, str | Sequence[str]] = {
            "CMAKE_CXX_COMPILER": compiler,
            "SANITIZERS": sanitizers,
            "TVM_FFI_DIR": str(Path(spec.origin).parent),
            "TVM_VERSION": metadata.version("apache-tvm"),
            "RUNTIME_LIBRARY": str(runtime.library),
            "JNI_INCLUDE_DIRS": [str(headers), str(headers / "linux")],
        }
        builder = cmake.find()
        source = resources.path("android-template") / "runtime/src/main/cpp/test"
        cmake.configure(builder, source, folder / "build", settings)
        done = subprocess.run(
            [builder.ninja, "-C", folder / "build"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        return folder / "build"

    return make


@pytest.fixture
def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def adb_port(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of an adb server of this test's own, so that no other one is touched."""
    from harness.tools import adb

    monkeypatch.setenv(adb.PORT_VARIABLE, str(free_port))
    yield free_port
    client = adb.find()
    subprocess.run(client.argv("kill-server"), capture_output=True)
