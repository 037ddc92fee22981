"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import StageFailed

CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: object) -> bytes:
    """One byte string for equal documents: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it takes the name only when the block succeeds.

    Raises `StageFailed` when it cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; what a build writes is as readable as any other file.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise disk_error(path, error) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a file's text atomically."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, document: object) -> None:
    """Replace a file by a JSON document, indented for people to read."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def disk_error(path: Path, error: OSError) -> StageFailed:
    """What the user reads when writing `path` failed."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StageFailed(
            f"cannot write {path}",
            cause="the disk is full",
            remedy=f"df -h {path.parent}   # free space, then run the same command again",
        )
    return StageFailed(
        f"cannot write {path}",
        cause=error.strerror or str(error),
        remedy=f"ls -ld {path.parent}",
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
