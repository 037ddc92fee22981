"""The versions table: which archives of a name were made, in `models/versions.json`.

The same bytes keep their version; other bytes under the same name get the next.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import StageFailed

SCHEMA = "harness.versions/1"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Version:
    """One archive that was made: `version` counts from 1 for each name, `size` is in bytes."""

    archive: str
    model: str
    quantization: str
    version: int
    sha256: str
    size: int
    date: str
    """The day in UTC, as ISO 8601 has it."""


def table_path(workspace: Path) -> Path:
    """Where a workspace keeps its table."""
    return workspace / "models" / "versions.json"


def read_versions(workspace: Path) -> tuple[Version, ...]:
    """The table in the order in which archives were made; empty where none was.

    Raises `StageFailed` if the file is damaged.
    """
    path = table_path(workspace)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as problem:
        raise _damaged(path, str(problem)) from problem
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _damaged(path, f"it is no {SCHEMA}")
    entries = document.get("versions")
    if not isinstance(entries, list):
        raise _damaged(path, "it lists no versions")
    return tuple(_entry(path, entry) for entry in entries)


def record_version(workspace: Path, *, model: str, quantization: str, archive: Path) -> Version:
    """Enter an archive that lies at `archive` into the table and return its entry.

    Two processes may do so at once. Raises `StageFailed` if the table is damaged or the disk full.
    """
    from filelock import FileLock

    digest, size = files.sha256_file(archive), archive.stat().st_size
    lock = workspace / ".harness" / "versions.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise files.disk_error(lock, problem) from problem
    with FileLock(lock):
        known = read_versions(workspace)
        same_name = [entry for entry in known if entry.archive == archive.name]
        for entry in same_name:
            if entry.sha256 == digest:
                return entry
        made = Version(
            archive=archive.name,
            model=model,
            quantization=quantization,
            version=max((entry.version for entry in same_name), default=0) + 1,
            sha256=digest,
            size=size,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        document = {"schema": SCHEMA, "versions": [asdict(entry) for entry in (*known, made)]}
        files.write_json(table_path(workspace), document)
    return made


def _entry(path: Path, entry: Any) -> Version:
    kinds: dict[str, type] = {"version": int, "size": int}
    if not isinstance(entry, dict) or entry.keys() != {field.name for field in fields(Version)}:
        raise _damaged(path, f"an entry has other keys than {SCHEMA}'s")
    for key, value in entry.items():
        if type(value) is not kinds.get(key, str):
            raise _damaged(path, f"{key} is {value!r:.100}")
    if entry["version"] < 1 or not _SHA256.fullmatch(entry["sha256"]):
        raise _damaged(path, f"the entry of {entry['archive']} has no true version or hash")
    return Version(**entry)


def _damaged(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"cannot read the versions table {path}",
        cause=cause,
        remedy=f"git checkout {path}   # or move it away, and versions count from 1 again",
    )
