"""The safetensors container, read strictly: nothing in a damaged or hostile file is believed.

Format: https://github.com/huggingface/safetensors#format. The file is mapped, so that a tensor
costs memory only while it is used; bfloat16, which numpy has not, stays bytes until then.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoints.mapped_file import map_file, unreadable

# A tensor takes about a hundred bytes: enough for a quarter of a million.
MAX_HEADER_BYTES = 25_000_000
MAX_DIMENSIONS = 8
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


@dataclass(frozen=True)
class SafeTensor:
    """One tensor of a file."""

    path: Path
    name: str
    dtype: str
    """By the format's names: F32, F16, BF16, I64, ..."""
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]
    """The stored bytes, [rows, bytes of a row], mapped and read-only; a vector is one row."""


def read_safetensors(path: Path) -> Mapping[str, SafeTensor]:
    """The tensors of a file, in the order of its header.

    Raises `StageFailed` with the reason if the file is not there, is truncated, holds a type that
    the format did not have when this was written, or contradicts itself.
    """
    mapped = map_file(path, "safetensors")
    try:
        return _read(path, mapped)
    except _Malformed as problem:
        raise unreadable(path, "safetensors", str(problem)) from problem


class _Malformed(Exception):
    pass


def _read(path: Path, data: mmap.mmap) -> dict[str, SafeTensor]:
    header, base = _header(data)
    available = len(data) - base
    tensors: dict[str, SafeTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(name, entry)
        if end > available:
            raise _Malformed(
                f"tensor {name!r:.100} ends at byte {base + end}, the file at {len(data)}: "
                "truncated?"
            )
        spans.append((begin, end, name))
        size, rows = end - begin, prod(shape[:-1])
        flat = np.frombuffer(data, np.uint8, size, base + begin)
        stored = flat.reshape((rows, size // rows) if size else (0, 0))
        tensors[name] = SafeTensor(path, name, dtype, shape, stored)
    _check_spans(spans, available)
    return tensors


def _header(data: mmap.mmap) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise _Malformed(f"it has {len(data)} bytes: truncated?")
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, MAX_HEADER_BYTES):
        raise _Malformed(f"it announces a header of {size} bytes: truncated, or no safetensors")
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:
        raise _Malformed(f"its header is not JSON: {problem!s:.100}") from problem
    if not isinstance(header, dict):
        raise _Malformed("its header is no JSON object")
    return header, 8 + size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    where = f"tensor {name!r:.100}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"{where} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _Malformed(f"{where} has the unknown type {dtype!r:.60}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise _Malformed(f"{where} has the shape {shape!r:.100}")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _Malformed(f"{where} has the offsets {offsets!r:.100}")
    begin, end = offsets
    size = prod(shape) * _ITEM_BYTES[dtype]
    if end - begin != size:
        raise _Malformed(
            f"{where} has {end - begin} bytes, its shape {shape} of {dtype} takes {size}"
        )
    return dtype, tuple(shape), begin, end


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def _check_spans(spans: list[tuple[int, int, str]], available: int) -> None:
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            kind = "overlaps another" if begin < at else "leaves a hole before it"
            raise _Malformed(f"tensor {name!r:.100} {kind}")
        at = end
    if at != available:
        raise _Malformed(f"its tensors end {available - at} bytes before the file")
