"""compile: from a recipe to a model package, through a folder for each part of it.

Weights, and the library of each ABI, are made apart: another ABI costs its library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
from harness import console, files
from harness.compiler import source
from harness.recipes import Recipe
from harness.store import artifacts
from harness.store.artifacts import Artifact
from harness.types import Abi, ModelPackage

STAGE = "compile"
# Their versions are part of every key: another version may give other bytes.
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "gguf", "numpy", "ziglang")


def compile_model(
    recipe: Recipe, quantization: str, abis: Sequence[Abi], workspace: Path
) -> ModelPackage:
    """The model package of a recipe with a library for each of `abis`.

    Whatever was made before from the same inputs is used again. Raises `UsageError` for an unknown
    quantization or architecture or a checkpoint that is not there, `MissingTool` if it cannot be
    fetched, `StageFailed` if it is damaged, the disk is full or the compiler fails.
    """
    from harness.compiler import quality

    code = _code_hash()
    weights = _weights(recipe, quantization, workspace, code)
    libraries = {
        abi: _library(recipe, quantization, abi, weights, workspace, code)
        for abi in sorted(set(abis))
    }
    inputs: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "weights": weights.key,
        "libraries": {abi.value: library.key for abi, library in libraries.items()},
        "quality": quality.recorded(recipe.folder, source.checkpoint_hash(recipe), quantization),
    }

    def build(folder: Path) -> Mapping[str, object]:
        known = inputs["quality"]
        return _assemble(folder, recipe, quantization, weights, libraries, code, known)

    made = artifacts.produce(workspace, "compile", inputs, build)
    size = int(weights.manifest["facts"]["weights_bytes"])
    if not made.fresh:
        names = ", ".join(libraries)
        console.unchanged(STAGE, f"{recipe.name} {quantization} for {names} is compiled")
    return ModelPackage(
        made.path / "package", made.key, recipe.name, quantization, tuple(libraries), size
    )


def _weights(recipe: Recipe, quantization: str, workspace: Path, code: str) -> Artifact:
    inputs = {
        "checkpoint": source.checkpoint_hash(recipe),
        "quantization": quantization,
        "code": code,
    }

    def build(folder: Path) -> Mapping[str, object]:
        from harness.compiler import quantization as quantizations
        from harness.compiler.worker import run_job

        quantizations.find(quantization)
        checkpoint = source.checkpoint_path(recipe)
        with console.step(STAGE, f"weights of {recipe.name} in {quantization}") as step:
            settings = {
                "checkpoint": str(checkpoint),
                "quantization": quantization,
                "folder": str(folder),
            }
            facts = run_job("weights", settings, folder, step)
            step.done(f"weights in {quantization}, {console.size(facts['weights_bytes'])}")
        return facts

    return artifacts.produce(workspace, "compile-weights", inputs, build)


def _library(
    recipe: Recipe, quantization: str, abi: Abi, weights: Artifact, workspace: Path, code: str
) -> Artifact:
    facts = weights.manifest["facts"]
    inputs = {
        "abi": abi.value,
        "config": facts["config"],
        "formats": facts["formats"],
        "quantization": quantization,
        "prefill_chunk": recipe.prefill_chunk,
        "code": code,
    }

    def build(folder: Path) -> Mapping[str, object]:
        from harness.compiler.worker import run_job

        with console.step(STAGE, f"model library for {abi}") as step:
            facts = run_job("library", {**inputs, "folder": str(folder)}, folder)
            size = (folder / "libmodel.so").stat().st_size
            step.done(f"model library for {abi}, {console.size(size)}")
        return facts

    return artifacts.produce(workspace, "compile-library", inputs, build)


def _assemble(
    folder: Path,
    recipe: Recipe,
    quantization: str,
    weights: Artifact,
    libraries: Mapping[Abi, Artifact],
    code: str,
    quality: Mapping[str, object] | None,
) -> Mapping[str, object]:
    """Link the parts into one folder and write what describes them."""
    from harness.compiler import describe
    from harness.compiler import package as packages
    from harness.compiler import quantization as quantizations

    target = folder / "package"
    target.mkdir()
    for part in sorted(weights.path.iterdir()):
        if part.name != "manifest.json":
            _place(part, target / part.name)
    for abi, library in libraries.items():
        _place(library.path / "libmodel.so", target / "lib" / abi / "libmodel.so")
    model: Mapping[str, Any] = weights.manifest["facts"]
    sizes = {"context": recipe.context, "prefill_chunk": recipe.prefill_chunk}
    config = describe.mlc_chat_config(model, quantization, **sizes)
    files.write_json(target / "mlc-chat-config.json", config)
    stamps = {abi.value: describe.target_stamp(abi) for abi in libraries}
    facts = describe.package_facts(
        name=recipe.name,
        title=recipe.title,
        model=model,
        quantization=quantization,
        kv_dtype=quantizations.find(quantization).kv_dtype,
        source_sha256=code,
        targets=stamps,
        quality=quality,
        **sizes,
    )
    packages.write_package_json(target, facts)
    return {}


def _place(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _code_hash() -> str:
    """A hash of the compiler itself: its sources and the versions of what it stands on."""
    digest = hashlib.sha256(harness.__version__.encode())
    for name in _PACKAGES:
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    folder = Path(harness.__file__).parent / "compiler"
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
