"""The model package: one folder with weights, tokenizer and libraries, its files by hash.

`package.json` says what the package is and names every other file with size and SHA-256; it is
written last. Weights lie in `params_shard_*.bin` as MLC's `tensor-cache.json` describes them,
each record at a 64-byte offset, so that shards are mapped and used in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt

from harness import files
from harness.compiler.mlc.tensor_cache import write_tensor_cache
from harness.errors import StageFailed, UsageError

SCHEMA = "harness.package/2"
LAYOUT = "rows8/1"
ALIGNMENT = 64
TENSOR_CACHE = "tensor-cache.json"
PACKAGE_JSON = "package.json"


def write_weights(
    folder: Path,
    tensors: Iterable[tuple[str, npt.NDArray[Any]]],
    metadata: Mapping[str, object],
) -> int:
    """Write tensors into shards and `tensor-cache.json`; return the bytes of all shards.

    One tensor is in memory at a time. Names come out under "params" in the order given, which is
    the order in which the library's functions take them.
    """
    named = ((name, tensor.dtype.name, tensor) for name, tensor in tensors)
    return write_tensor_cache(folder, named, metadata, ALIGNMENT)


def write_package_json(folder: Path, facts: Mapping[str, object]) -> dict[str, Any]:
    """Hash every file under `folder` and write `package.json` last; return its document."""
    listed: dict[str, dict[str, object]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / PACKAGE_JSON:
            listed[path.relative_to(folder).as_posix()] = {
                "sha256": files.sha256_file(path),
                "size": path.stat().st_size,
            }
    document = {"schema": SCHEMA, **facts, "files": listed}
    files.write_json(folder / PACKAGE_JSON, document)
    return document


@dataclass(frozen=True)
class Package:
    """A package on disk whose description was read and found sound."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def abis(self) -> tuple[str, ...]:
        """ABIs that the package has a library for."""
        targets: Mapping[str, Any] = self.facts["stamp"]["targets"]
        return tuple(targets)

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name


def read_package(path: Path, *, verify: bool = False) -> Package:
    """Read a package's description and check its files' sizes (with `verify`, their hashes).

    Raises `UsageError` if `path` is no package, or one for another TVM version; `StageFailed` if
    files are missing or damaged.
    """
    try:
        facts = json.loads((path / PACKAGE_JSON).read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise UsageError(
            f"{path} is no model package",
            cause=f"it has no {PACKAGE_JSON}",
            remedy="harness compile MODEL   # and give the folder that it prints",
        ) from problem
    except (OSError, ValueError) as problem:
        raise _damaged(path, f"{PACKAGE_JSON} cannot be read: {problem}") from problem
    _check_facts(path, facts)
    for name, entry in facts["files"].items():
        _check_file(path, name, entry, verify)
    return Package(path, facts)


def tvm_version() -> str:
    """The installed TVM's version, without importing it."""
    from importlib.metadata import version

    return version("apache-tvm")


def _check_facts(path: Path, facts: Any) -> None:
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        found = facts.get("schema") if isinstance(facts, dict) else None
        raise UsageError(
            f"{path} is not a package that this harness reads",
            cause=f"its schema is {found!r}, not {SCHEMA!r}",
            remedy="harness compile MODEL   # to make it again",
        )
    stamp = facts.get("stamp")
    if (
        not isinstance(stamp, dict)
        or not isinstance(stamp.get("targets"), dict)
        or not isinstance(facts.get("files"), dict)
    ):
        raise _damaged(path, f"{PACKAGE_JSON} lacks its build stamp or its list of files")
    if stamp.get("tvm") != tvm_version():
        raise UsageError(
            f"{path} was compiled by TVM {stamp.get('tvm')}",
            cause=f"TVM {tvm_version()} is installed, and a library runs with its own version only",
            remedy="harness compile MODEL   # to make it again with the installed version",
        )


def _check_file(path: Path, name: str, entry: Any, verify: bool) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
        raise _damaged(path, f"{PACKAGE_JSON} names {name!r}, a path outside the package")
    if not isinstance(entry, dict) or not {"sha256", "size"} <= entry.keys():
        raise _damaged(path, f"{PACKAGE_JSON} says nothing of {name}")
    file = path / pure
    if file.is_symlink() or not file.is_file():
        raise _damaged(path, f"{name} is missing")
    if file.stat().st_size != entry["size"]:
        raise _damaged(path, f"{name} has {file.stat().st_size} bytes, not {entry['size']}")
    if verify and files.sha256_file(file) != entry["sha256"]:
        raise _damaged(path, f"{name} has other bytes than when it was made")


def _damaged(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"the package {path} is damaged",
        cause=cause,
        remedy=f"rm -r {path}   # then run harness compile again",
    )
