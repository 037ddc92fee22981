"""The Kotlin modules' own tests, on a package just compiled and the real native library."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import resources
from harness.errors import MissingTool
from harness.stages.build import build
from harness.tools import jdk, maven
from harness.types import Abi, Libc, Target

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host"),
    # On a new machine Maven fetches all its plugins first.
    pytest.mark.timeout(1200),
]

CHECKOUT = Path(__file__).resolve().parents[2]
TEMPLATE = resources.path("android-template")
SUMMARY = re.compile(
    r'<testsuite [^>]*tests="(\d+)" errors="(\d+)" skipped="(\d+)" failures="(\d+)"'
)
# Everything that goes through the binding, but for what measures memory or takes long.
NATIVE_SUITES = (
    "ALCEngineOnTVMTest",
    "CallFrameTest",
    "HostilePackageTest",
    "ThreadsTest",
    "TVMModelLoaderTest",
    "TVMModuleTest",
)

# A Java machine lives on SIGSEGV, and what it holds to its end is no leak. One test asks for more
# memory than there is.
ASAN_OPTIONS = ":".join(
    (
        "handle_segv=0",
        "use_sigaltstack=0",
        "detect_leaks=0",
        "allocator_may_return_null=1",
        "abort_on_error=1",
    )
)


class Modules(NamedTuple):
    """The modules, built with their tests, which have passed; and what they ran on."""

    folder: Path
    jars: maven.KotlinJars
    package: Path


@pytest.fixture(scope="module")
def tested(
    tiny_gguf: Path, compiled: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Modules:
    try:
        maven.find()
    except MissingTool as missing:
        pytest.skip(str(missing))
    runtime = build(Target(Abi.X86_64, Libc.GLIBC), CHECKOUT)
    package = compiled(tiny_gguf, "q0f32")
    folder = tmp_path_factory.mktemp("kotlin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALC_RUNTIME", str(runtime.library))
        patch.setenv("ALC_PACKAGE", str(package))
        jars = maven.build_kotlin(TEMPLATE, folder, tests=True)
    return Modules(folder, jars, package)


def gcc_library(name: str) -> str:
    """The path of a library that g++ brings."""
    words = ["g++", f"-print-file-name={name}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_the_kotlin_modules_pass_their_tests_on_a_compiled_package(tested: Modules) -> None:
    reports = [
        report
        for module in ("runtime", "app")
        for report in (tested.folder / module / "target/surefire-reports").glob("TEST-*.xml")
    ]
    counts = [SUMMARY.search(report.read_text()) for report in reports]
    tests, errors, skipped, failures = (
        sum(int(count.group(part)) for count in counts if count) for part in range(1, 5)
    )
    assert tests >= 40
    assert (errors, skipped, failures) == (0, 0, 0)


def test_the_binding_is_clean_under_address_sanitizer_in_a_jvm(
    tested: Modules, sanitized: Callable[[str], Path]
) -> None:
    """The same tests again, with the binding instrumented: the JNI edge on top of the core."""
    library = sanitized("address,undefined") / "libalc_sanitized.so"
    # The second one, so that the first finds what throws C++ exceptions.
    preload = " ".join(gcc_library(name) for name in ("libasan.so", "libstdc++.so"))
    classes = [
        tested.folder / name / f"target/{kind}"
        for name, kind in (
            ("runtime", "test-classes"),
            ("runtime", "classes"),
            ("engine", "classes"),
        )
    ]
    libraries = maven.resolve(TEMPLATE, maven.poms.read_catalog(TEMPLATE).bundles["test"])
    path = ":".join(map(str, (*classes, *tested.jars.libraries, *libraries)))
    done = subprocess.run(
        [
            jdk.find().java,
            f"-Dalc.runtime={library}",
            f"-Dalc.package={tested.package}",
            *("-cp", path, "org.junit.runner.JUnitCore"),
            *(f"dev.alc.runtime.{name}" for name in NATIVE_SUITES),
        ],
        env={
            **os.environ,
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": ASAN_OPTIONS,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    ran = re.search(r"OK \((\d+) tests\)", done.stdout)
    assert ran is not None and int(ran.group(1)) >= 30
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr
