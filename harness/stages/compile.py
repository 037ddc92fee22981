"""compile: from a recipe to a model package, through a folder for each part of it.

Weights, and the library of each ABI, are made apart: another ABI costs its library only, and
another context neither.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import console, files
from harness.compiler.options import CompileOptions
from harness.compiler.sources import source
from harness.errors import UsageError
from harness.recipes import Recipe
from harness.store import artifacts
from harness.store.artifacts import Artifact
from harness.types import Abi, ModelPackage

if TYPE_CHECKING:
    from harness.compiler.packages.memory import Footprint

STAGE = "compile"
# Their versions are part of every key: another version may give other bytes.
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "gguf", "numpy", "ziglang")


def compile_model(
    recipe: Recipe, options: CompileOptions, abis: Sequence[Abi], workspace: Path
) -> ModelPackage:
    """The model package of a recipe with a library for each of `abis`; in MLC's layout, without.

    Whatever was made before from the same inputs is used again. Raises `UsageError` for an unknown
    quantization or architecture, a checkpoint that is not there, or a context that the model or
    the memory budget does not allow; `MissingTool` if the checkpoint cannot be fetched;
    `StageFailed` if it is damaged, the disk is full or the compiler fails.
    """
    code = _code_hash()
    weights = _weights(recipe, options, workspace, code)
    _check_context(recipe, options, weights)
    if options.layout == "mlc":
        return _for_mlc(recipe, options, weights, workspace, code)
    libraries = {abi: _library(options, abi, weights, workspace, code) for abi in sorted(set(abis))}
    footprint = _footprint(options, weights, libraries)
    context = _context(options, footprint)
    inputs: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "model_code": recipe.code,
        "context": context,
        "weights": weights.key,
        "libraries": {abi.value: library.key for abi, library in libraries.items()},
    }

    def build(folder: Path) -> Mapping[str, object]:
        from harness.compiler.mlc import layout as mlc_layout
        from harness.compiler.packages import describe, package

        target = folder / "package"
        _gather(target, weights, libraries)
        model = weights.manifest["facts"]
        try:
            conversation = mlc_layout.conversation(recipe.name, weights.path, model)
        except UsageError:
            conversation = None  # the engine renders the template itself
        config = describe.mlc_chat_config(model, options, context, conversation)
        files.write_json(target / "mlc-chat-config.json", config)
        facts = describe.package_facts(
            name=recipe.name,
            title=recipe.title,
            model_code=recipe.code,
            model=model,
            options=options,
            context=context,
            footprint=footprint,
            abis=tuple(libraries),
            source_sha256=code,
            quality=model["quality"],
        )
        package.write_package_json(target, facts)
        return {}

    made = artifacts.produce(workspace, "compile", inputs, build)
    size = int(weights.manifest["facts"]["weights_bytes"])
    if not made.fresh:
        names = ", ".join(libraries)
        console.unchanged(STAGE, f"{recipe.name} {options.quantization} for {names} is compiled")
    return ModelPackage(
        made.path / "package", made.key, recipe.name, options.quantization, tuple(libraries), size
    )


def _for_mlc(
    recipe: Recipe, options: CompileOptions, weights: Artifact, workspace: Path, code: str
) -> ModelPackage:
    """The same weights as MLC's own tools read them; those compile a library themselves."""
    inputs = {
        "name": recipe.name,
        "title": recipe.title,
        "model_code": recipe.code,
        "context": options.context,
        "prefill_chunk": options.prefill_chunk,
        "weights": weights.key,
    }

    def build(folder: Path) -> Mapping[str, object]:
        from harness.compiler.mlc import layout as mlc_layout
        from harness.compiler.packages import describe, package

        target, model = folder / "package", weights.manifest["facts"]
        with console.step(STAGE, f"{recipe.name} in MLC's layout") as step:
            size = mlc_layout.write(
                target,
                weights.path,
                model,
                name=recipe.name,
                quantization=options.quantization,
                context=options.context,
                prefill_chunk=options.prefill_chunk,
                progress=step.progress,
            )
            step.done(f"weights in MLC's layout, {console.size(size)}")
        facts = describe.package_facts(
            name=recipe.name,
            title=recipe.title,
            model_code=recipe.code,
            model={**model, "weights_bytes": size},
            options=options,
            context=options.context,
            footprint=None,
            abis=(),
            source_sha256=code,
            quality=model["quality"],
        )
        package.write_package_json(target, facts)
        return {"weights_bytes": size}

    made = artifacts.produce(workspace, "compile-mlc", inputs, build)
    if not made.fresh:
        console.unchanged(STAGE, f"{recipe.name} {options.quantization} is in MLC's layout")
    size = int(made.manifest["facts"]["weights_bytes"])
    return ModelPackage(
        made.path / "package", made.key, recipe.name, options.quantization, (), size
    )


def _weights(recipe: Recipe, options: CompileOptions, workspace: Path, code: str) -> Artifact:
    inputs = {"checkpoint": source.checkpoint_hash(recipe), **options.weights, "code": code}
    quantization = options.quantization

    def build(folder: Path) -> Mapping[str, object]:
        from harness.compiler import quantization as quantizations
        from harness.compiler.worker import run_job

        quantizations.find(quantization)
        checkpoint = source.checkpoint_path(recipe)
        with console.step(STAGE, f"weights of {recipe.name} in {quantization}") as step:
            settings = {
                "checkpoint": str(checkpoint),
                "quantization": quantization,
                "group_size": options.group_size,
                "embedding": options.embedding,
                "calibration": options.calibration,
                "calibration_samples": options.calibration_samples,
                "folder": str(folder),
            }
            facts = run_job("weights", settings, folder, step)
            step.done(f"weights in {quantization}, {console.size(facts['weights_bytes'])}")
        if facts["advice"]:
            console.info(facts["advice"])
        return facts

    return artifacts.produce(workspace, "compile-weights", inputs, build)


def _library(
    options: CompileOptions, abi: Abi, weights: Artifact, workspace: Path, code: str
) -> Artifact:
    facts = weights.manifest["facts"]
    inputs = {
        "abi": abi.value,
        "config": facts["config"],
        "formats": facts["formats"],
        **options.code,
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


def _check_context(recipe: Recipe, options: CompileOptions, weights: Artifact) -> None:
    """The model's own context is the most that it can be compiled for."""
    most = int(weights.manifest["facts"]["config"]["context_window"])
    if options.context > most:
        raise UsageError(
            f"{recipe.name} takes no {options.context} tokens of context",
            cause=f"it was made for {most}",
            remedy=f"--context {most}",
        )


def _footprint(
    options: CompileOptions, weights: Artifact, libraries: Mapping[Abi, Artifact]
) -> Footprint:
    from harness.compiler import quantization as quantizations
    from harness.compiler.model_config import DecoderConfig
    from harness.compiler.packages import memory

    facts = weights.manifest["facts"]
    sizes = [(library.path / "libmodel.so").stat().st_size for library in libraries.values()]
    return memory.footprint(
        DecoderConfig.from_json(facts["config"]),
        kv_dtype=quantizations.find(options.quantization).kv_dtype,
        prefill_chunk=options.prefill_chunk,
        weights_bytes=int(facts["weights_bytes"]),
        planned=[library.manifest["facts"]["memory_usage"] for library in libraries.values()],
        library_bytes=max(sizes),
    )


def _context(options: CompileOptions, footprint: Footprint) -> int:
    """The context that is compiled for, which the memory budget may shorten."""
    from harness.compiler.packages import memory

    if options.memory_budget is None:
        return options.context
    context = memory.context_within(
        footprint,
        options.context,
        least=min(options.context, options.prefill_chunk),
        may_shrink=options.context_may_shrink,
        budget=options.memory_budget * memory.MIB,
    )
    if context < options.context:
        console.warn(
            f"the context is {context} tokens instead of {options.context}: "
            f"that is what fits {options.memory_budget} MiB"
        )
    return context


def _gather(target: Path, weights: Artifact, libraries: Mapping[Abi, Artifact]) -> None:
    """Link the parts into one folder."""
    target.mkdir()
    for part in sorted(weights.path.iterdir()):
        if part.name != "manifest.json":
            _place(part, target / part.name)
    for abi, library in libraries.items():
        _place(library.path / "libmodel.so", target / "lib" / abi / "libmodel.so")


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
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
