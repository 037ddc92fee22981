"""Build folders named by what went into them: nothing is made twice, nothing is left half made."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console, files
from harness.errors import StageFailed

SCHEMA = "harness.artifact/1"
_frozen = False


@dataclass(frozen=True)
class Artifact:
    """A finished output folder of a stage; `fresh` says that this call made it."""

    path: Path
    key: str
    manifest: Mapping[str, Any]
    fresh: bool


def key_of(inputs: Mapping[str, object]) -> str:
    """The hexadecimal SHA-256 of a stage's inputs (JSON values), whatever their order."""
    return hashlib.sha256(files.canonical_json(inputs)).hexdigest()


def folder(workspace: Path, stage: str, key: str) -> Path:
    """Where the output of a stage with this key lies."""
    return workspace / ".harness" / "build" / stage / key[:16]


def find(workspace: Path, stage: str, inputs: Mapping[str, object]) -> Artifact | None:
    """The output for these inputs if it is there and whole."""
    key = key_of(inputs)
    path = folder(workspace, stage, key)
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if manifest.get("schema") != SCHEMA or manifest.get("key") != key:
        return None
    return Artifact(path, key, manifest, fresh=False)


def produce(
    workspace: Path,
    stage: str,
    inputs: Mapping[str, object],
    build: Callable[[Path], Mapping[str, object]],
) -> Artifact:
    """Return the stage's output for `inputs`, calling `build` only if it is not there yet.

    `build` gets an empty folder and returns facts for the manifest (under "facts"). The manifest
    is written last and the folder then takes its name, so that a folder with that name is whole.
    Two processes that ask for the same output do the work once: the second waits for the first.

    Raises what `build` raises, and `StageFailed` when the disk is full; neither leaves a trace.
    """
    found = find(workspace, stage, inputs)
    if found is not None:
        return found
    if _frozen:
        raise StageFailed(
            f"the output of {stage} is not there",
            cause="it was never made with these settings, and --from skips the stage",
            remedy=f"harness run --from {stage}",
        )
    key = key_of(inputs)
    path = folder(workspace, stage, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise files.disk_error(path, problem) from problem
    with _lock(path.with_suffix(".lock"), stage):
        found = find(workspace, stage, inputs)
        if found is not None:
            return found
        _sweep(path)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            work.chmod(0o755)
            facts = build(work)
            manifest = {"schema": SCHEMA, "stage": stage, "key": key, "inputs": dict(inputs)}
            manifest["facts"] = dict(facts)
            files.write_json(work / "manifest.json", manifest)
            if path.exists():
                shutil.rmtree(path)
            work.replace(path)
        except OSError as problem:
            shutil.rmtree(work, ignore_errors=True)
            raise files.disk_error(path, problem) from problem
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return Artifact(path, key, manifest, fresh=True)


@contextmanager
def frozen() -> Iterator[None]:
    """Inside, nothing is built: `produce` only returns what is there, else raises `StageFailed`."""
    global _frozen
    before, _frozen = _frozen, True
    try:
        yield
    finally:
        _frozen = before


def _sweep(path: Path) -> None:
    """Remove what a killed process left of this very output; the lock says that it is nobody's."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def _lock(path: Path, stage: str) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        console.info(f"  {stage} is being made by another process; waiting for it")
    return lock
