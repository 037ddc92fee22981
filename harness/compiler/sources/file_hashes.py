"""SHA-256 of large files, computed once as long as they stay as they are.

What is known of a file is kept under its path, size, time of change and inode, in a file of its
own with a checksum: two processes do not meet, and a damaged entry counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from pathlib import Path

from harness import files
from harness.errors import HarnessError
from harness.tools import pip

# A file may change again within the clock tick of its last change: such a young one is not kept.
_YOUNG_NS = 2_000_000_000
_ENTRY = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64})\n")


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes. Raises `OSError` if it cannot be read."""
    path = path.resolve()
    key = _key(path)
    entry = pip.cache_folder() / "hashes" / key[:2] / key
    known = _read(entry, key)
    if known is not None:
        return known
    began = time.time_ns()
    value = files.sha256_file(path)
    if _key(path) == key and began - path.stat().st_mtime_ns > _YOUNG_NS:
        # Without room for the entry, the next call computes again.
        with contextlib.suppress(HarnessError, OSError):
            files.write_text(entry, f"{value} {_checksum(key, value)}\n")
    return value


def _key(path: Path) -> str:
    stat = path.stat()
    facts = f"{path}\n{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()


def _read(entry: Path, key: str) -> str | None:
    try:
        found = _ENTRY.fullmatch(entry.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    if found is None or found.group(2) != _checksum(key, found.group(1)):
        return None
    return found.group(1)


def _checksum(key: str, value: str) -> str:
    return hashlib.sha256(f"{key} {value}".encode()).hexdigest()
