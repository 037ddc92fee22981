"""A checkpoint's file mapped into memory, and the one error for a file that is not what it says."""

from __future__ import annotations

import mmap
from pathlib import Path

from harness.errors import StageFailed


def map_file(path: Path, kind: str) -> mmap.mmap:
    """The file's bytes, read-only; raises `StageFailed` if it is not there or is empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as problem:
        raise unreadable(path, kind, "the file is empty") from problem
    except OSError as problem:
        raise unreadable(path, kind, problem.strerror or str(problem)) from problem


def unreadable(path: Path, kind: str, cause: str) -> StageFailed:
    """The error for a file that cannot be read as one of its kind."""
    return StageFailed(
        f"cannot read {path.name} as a {kind} file",
        cause=cause,
        remedy=f"ls -l {path}   # remove it if it is damaged, then run the same command again",
    )
