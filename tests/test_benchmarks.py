"""Benchmarks are no tests, but what they are written against must not change under them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.tools import jdk

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
# Those that need nothing but the engine's own classes.
SOURCES = [["SoakOnJvm"], ["FirstToken"], ["NativeCalls", "EngineOverhead"]]


@pytest.mark.parametrize("names", SOURCES, ids=lambda names: names[-1])
def test_a_program_of_the_benchmarks_compiles_against_the_engine(
    names: list[str], kotlin_jars: str, tmp_path: Path
) -> None:
    sources = [BENCHMARKS / f"{name}.java" for name in names]
    done = subprocess.run(
        [jdk.find().javac, "-proc:none", "-d", tmp_path, "-cp", kotlin_jars, *sources],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
