"""A JSON file that someone else wrote, as an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import StageFailed

# An index of a hundred thousand tensors has 10 MB; nobody means a larger one.
MAX_BYTES = 50_000_000


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a file; raises `StageFailed` if there is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it holds no JSON object")
    except OSError as problem:
        raise _bad(path, problem.strerror or str(problem)) from problem
    except (ValueError, RecursionError) as problem:
        raise _bad(path, f"{problem!s:.200}") from problem
    return document


def _bad(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"cannot read {path.name}",
        cause=cause,
        remedy=f"ls -l {path}   # get the file again from its source",
    )
