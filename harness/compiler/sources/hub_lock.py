"""A hub's files held to what came first: `recipe.lock`, a commit and the SHA-256 of each file.

    {"schema": "harness.lock/1", "hub": "org/name", "revision": "main", "commit": "<40 hex>",
     "files": {"config.json": {"sha256": "<64 hex>", "size": 899}, ...}}

A branch may move on: the lock's commit is fetched until the lock is removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.compiler.sources import file_hashes, needed_files
from harness.errors import StageFailed, UsageError
from harness.recipe import HubSource
from harness.tools import hub

SCHEMA = "harness.lock/1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_-][A-Za-z0-9._/-]*")


@dataclass(frozen=True)
class Lock:
    """The commit that came first and the SHA-256 of each needed file."""

    commit: str
    sha256: Mapping[str, str]


def read(source: HubSource) -> Lock | None:
    """The source's lock, or None where nothing was fetched yet.

    Raises `StageFailed` if it is damaged, `UsageError` if it belongs to another source.
    """
    try:
        document = json.loads(source.lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise _damaged(source.lock, str(problem)) from problem
    lock = _parse(document)
    if lock is None:
        raise _damaged(source.lock, f"it is no {SCHEMA}")
    for key, wanted in (("hub", source.id), ("revision", source.revision)):
        if document.get(key) != wanted:
            raise UsageError(
                f"{source.lock} belongs to another {key}",
                cause=f"it holds {document.get(key)!r}, the recipe says {wanted!r}",
                remedy=_renew(source),
            )
    if source.files and set(source.files) != lock.sha256.keys():
        raise UsageError(
            f"{source.lock} belongs to other files",
            cause=f"it holds {', '.join(lock.sha256)}, the recipe says {', '.join(source.files)}",
            remedy=_renew(source),
        )
    return lock


def fetch(source: HubSource, stage: str) -> dict[str, Path]:
    """The source's files on this machine, by name; the first time, the lock is written.

    Raises as `read`, `needed_files.select` and `hub.fetch` do, and `StageFailed` if a file is
    another than the lock says.
    """
    lock = read(source)
    if lock is None:
        return _fetch_first(source, stage)
    paths: dict[str, Path] = {}
    for name, expected in lock.sha256.items():
        paths[name] = hub.fetch(source.id, lock.commit, name, stage=stage)
        actual = file_hashes.sha256(paths[name])
        if actual != expected:
            raise StageFailed(
                f"{name} of {source.id} is another file than the one that came first",
                cause=f"sha256 is {actual}, {source.lock} says {expected}",
                remedy=f"rm {paths[name].resolve()}   # to fetch it again, or {_renew(source)}",
            )
    return paths


def fetch_config(source: HubSource, stage: str) -> dict[str, Path]:
    """The source's small configuration file alone, by name; empty where it has none."""
    lock = read(source)
    if lock is None:
        listing = hub.list_files(source.id, source.revision)
        commit, names = listing.commit, set(listing.names)
    else:
        commit, names = lock.commit, set(lock.sha256)
    for name in (needed_files.MLC_CONFIG, needed_files.CONFIG):
        if name in names and (not source.files or name in source.files):
            return {name: hub.fetch(source.id, commit, name, stage=stage)}
    return {}


def _fetch_first(source: HubSource, stage: str) -> dict[str, Path]:
    listing = hub.list_files(source.id, source.revision)

    def read_small(name: str) -> bytes:
        return hub.fetch(source.id, listing.commit, name, stage=stage).read_bytes()

    names = source.files or needed_files.select(source.id, listing.names, read_small)
    missing = sorted(set(names) - set(listing.names))
    if missing:
        raise UsageError(
            f"{source.id} has no {', '.join(missing)}",
            cause=f"at {source.revision} it holds {len(listing.names)} other files",
            remedy="correct source.files of the recipe",
        )
    paths = {name: hub.fetch(source.id, listing.commit, name, stage=stage) for name in names}
    held = {
        name: {"sha256": file_hashes.sha256(path), "size": path.stat().st_size}
        for name, path in paths.items()
    }
    files.write_json(
        source.lock,
        {
            "schema": SCHEMA,
            "hub": source.id,
            "revision": source.revision,
            "commit": listing.commit,
            "files": held,
        },
    )
    return paths


def _parse(document: Any) -> Lock | None:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    commit, listed = document.get("commit"), document.get("files")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        return None
    if not isinstance(listed, dict) or not listed:
        return None
    hashes: dict[str, str] = {}
    for name, entry in listed.items():
        value = entry.get("sha256") if isinstance(entry, dict) else None
        if not _NAME.fullmatch(name) or not isinstance(value, str) or not _SHA256.fullmatch(value):
            return None
        hashes[name] = value
    return Lock(commit, hashes)


def _damaged(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"cannot read {path}",
        cause=cause,
        remedy=f"git checkout {path}   # or: rm {path}, which takes what the hub has now",
    )


def _renew(source: HubSource) -> str:
    return f"rm {source.lock}   # takes what the hub has now"
