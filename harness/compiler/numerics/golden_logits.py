"""A golden file: what a reference implementation answers on a text, logit by logit.

The file is numpy's `.npz` with `input_ids` int64 (1, n), `logits` float32 (n, vocabulary) after
each of them, and `greedy` int64 (m,), the tokens that greedy decoding goes on with.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import HarnessError, UsageError

MAX_BYTES = 4 << 30
_DTYPES = {"input_ids": np.int64, "logits": np.float32, "greedy": np.int64}


@dataclass(frozen=True)
class GoldenLogits:
    """`tokens` [n], the `logits` [n, vocabulary] after each, `greedy` tokens [m] after all."""

    tokens: tuple[int, ...]
    logits: npt.NDArray[np.float32]
    greedy: tuple[int, ...]


def read_golden_logits(path: Path) -> GoldenLogits:
    """Read a golden file; raises `UsageError` if it is none, or damaged."""
    try:
        # Sizes are checked before anything is unpacked; objects (pickles) are never read.
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise _wrong(path, f"it unpacks to more than {MAX_BYTES >> 30} GiB")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: _array(path, arrays, name) for name in _DTYPES}
    except FileNotFoundError as problem:
        raise _wrong(path, "there is no such file") from problem
    except HarnessError:
        raise
    # A damaged archive makes zipfile, zlib and numpy's header parser raise all kinds of errors.
    except Exception as problem:
        raise _wrong(path, f"{type(problem).__name__}: {problem}") from problem
    ids, logits, greedy = found["input_ids"], found["logits"], found["greedy"]
    if ids.ndim != 2 or len(ids) != 1 or logits.ndim != 2 or greedy.ndim != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in found.items())
        raise _wrong(path, f"the shapes are {shapes}")
    if len(logits) != ids.shape[1] or not logits.size:
        raise _wrong(path, f"{ids.shape[1]} tokens have {len(logits)} rows of logits")
    if not np.isfinite(logits).all():
        raise _wrong(path, "logits holds values that are no numbers")
    for name in ("input_ids", "greedy"):
        if found[name].size and not 0 <= found[name].min() <= found[name].max() < logits.shape[1]:
            raise _wrong(path, f"{name} holds tokens outside the vocabulary of {logits.shape[1]}")
    return GoldenLogits(tuple(ids[0].tolist()), logits, tuple(greedy.tolist()))


def _array(path: Path, arrays: Any, name: str) -> npt.NDArray[Any]:
    if name not in arrays:
        raise _wrong(path, f"it has no array {name}")
    array: npt.NDArray[Any] = arrays[name]
    if array.dtype != _DTYPES[name]:
        raise _wrong(path, f"{name} is {array.dtype}, not {np.dtype(_DTYPES[name])}")
    return array


def _wrong(path: Path, cause: str) -> UsageError:
    return UsageError(
        f"{path} is not a golden file",
        cause=cause,
        remedy="a golden file is an .npz with input_ids, logits and greedy: see docs/verifying.md",
    )
