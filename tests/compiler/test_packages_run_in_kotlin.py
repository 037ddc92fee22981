"""The Kotlin modules' own tests, on a package just compiled and the real native library."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import resources
from harness.errors import MissingTool
from harness.stages.build import build
from harness.tools import maven
from harness.types import Abi, Libc, Target

CHECKOUT = Path(__file__).resolve().parents[2]
SUMMARY = re.compile(
    r'<testsuite [^>]*tests="(\d+)" errors="(\d+)" skipped="(\d+)" failures="(\d+)"'
)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")
def test_the_kotlin_modules_pass_their_tests_on_a_compiled_package(
    tiny_gguf: Path,
    compiled: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        maven.find()
    except MissingTool as missing:
        pytest.skip(str(missing))
    runtime = build(Target(Abi.X86_64, Libc.GLIBC), CHECKOUT)
    package = compiled(tiny_gguf, "q0f32")
    monkeypatch.setenv("ALC_RUNTIME", str(runtime.library))
    monkeypatch.setenv("ALC_PACKAGE", str(package))
    maven.build_kotlin(resources.path("android-template"), tmp_path, tests=True)
    reports = [
        report
        for module in ("runtime", "app")
        for report in (tmp_path / module / "target/surefire-reports").glob("TEST-*.xml")
    ]
    counts = [SUMMARY.search(report.read_text()) for report in reports]
    tests, errors, skipped, failures = (
        sum(int(count.group(part)) for count in counts if count) for part in range(1, 5)
    )
    assert tests >= 40
    assert (errors, skipped, failures) == (0, 0, 0)
