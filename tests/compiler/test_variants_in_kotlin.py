"""The engine takes the variant that a core can run, and it runs: on cores that qemu emulates.

A core of another kind ends with SIGILL at the first instruction that it does not have.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.compiler import host
from harness.compiler.kernels.isa import Isa
from harness.errors import MissingTool
from harness.stages.build import build
from harness.tools import jdk, qemu
from harness.types import Abi, Libc, Target
from harness.virtual_phone import java_runtime

# The first test builds what the emulated cores get, unless an earlier run did.
pytestmark = [pytest.mark.phone, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("VariantCases.java")
TOKENS = [int(token) for token in np.random.default_rng(9).integers(3, 260, 20)]
COUNT = 12
CORES = {
    "cortex-a53": Isa.ARMV8,
    "cortex-a72": Isa.ARMV8,
    "cortex-a76": Isa.ARMV8_2_DOTPROD,
    "max": Isa.ARMV8_2_I8MM,
    "Nehalem": Isa.X86_64_V2,
    "Haswell": Isa.X86_64_V3,
}
Answer = Callable[[Abi, str, Sequence[str]], list[str]]


@pytest.fixture(scope="module")
def package(tiny_gguf: Path, compiled: Callable[..., Path]) -> Path:
    return compiled(tiny_gguf, "q4f16_gguf", abis=tuple(Abi))


@pytest.fixture(scope="module")
def expected(package: Path) -> str:
    """The answer of a variant that runs here."""
    if platform.machine() != "x86_64":
        pytest.skip("the answer to compare with is an x86_64 host's")
    found = host.generate(package, TOKENS, COUNT)["token_ids"]
    assert len(found) == COUNT
    return " ".join(map(str, found))


@pytest.fixture(scope="module")
def answers(package: Path, kotlin_jars: str, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """A function that gives a line for each variant asked for, from an emulated core."""
    classes = tmp_path_factory.mktemp("classes")
    compiler = jdk.find().java.with_name("javac")
    subprocess.run([compiler, "-cp", kotlin_jars, "-d", classes, SOURCE], check=True)

    def ask(abi: Abi, core: str, variants: Sequence[str]) -> list[str]:
        emulator = _emulator(abi)
        java = java_runtime.prepare(abi) / "bin/java"
        library = build(Target(abi, Libc.GLIBC), CHECKOUT).library
        argv = [
            *(*emulator, java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-Xmx256m", "--enable-native-access=ALL-UNNAMED"),
            *("-cp", f"{classes}:{kotlin_jars}", "VariantCases"),
            *(library, tmp_path_factory.mktemp("code"), package),
            *(",".join(map(str, TOKENS)), str(COUNT), *variants),
        ]
        environment = {**os.environ, "QEMU_CPU": core}
        done = subprocess.run(
            [str(word) for word in argv], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, (
            f"{done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
        return done.stdout.splitlines()

    return ask


def _emulator(abi: Abi) -> list[str]:
    if abi is Abi.ARM64:
        try:
            return qemu.find().argv()
        except MissingTool as missing:
            pytest.skip(str(missing))
    program = shutil.which("qemu-x86_64-static")
    if program is None:
        pytest.skip("qemu-x86_64-static is not installed")
    return [program]


@pytest.mark.parametrize(("core", "best"), CORES.items(), ids=CORES)
def test_a_core_runs_the_best_variant_that_it_can_and_gives_the_same_answer(
    answers: Answer, expected: str, core: str, best: Isa
) -> None:
    own, *others = answers(best.abi, core, ["-", *Isa.of(best.abi), "armv4t"])
    assert own == f"cpu/{best} {expected}"
    variants = Isa.of(best.abi)
    for isa, line in zip(variants, others, strict=False):
        if variants.index(isa) <= variants.index(best):
            assert line == f"cpu/{isa} {expected}"
        else:
            assert line.startswith(f"invalid-request: the variant {isa} of tiny needs ")
            assert line.endswith(", which this processor lacks")
    known = ", ".join(reversed(variants))
    assert others[-1] == (
        f"invalid-request: tiny has no variant 'armv4t' for {best.abi}: it has {known}"
    )
