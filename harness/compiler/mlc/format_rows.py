"""Rows of a matrix that has a weight format already, as bytes: its integers, then its scales.

A checkpoint's tensor of this kind goes by the format's name. A package in the same format takes
its integers and scales over as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.kernels.layout import WeightFormat, plain_tensors


def to_rows(plain: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """The bytes, uint8 [rows, bytes of a row], of a quantized matrix's plain tensors."""
    parts = [np.ascontiguousarray(values).view(np.uint8) for values in plain.values()]
    return np.concatenate(parts, axis=1)


def from_rows(
    fmt: WeightFormat, data: npt.NDArray[np.uint8], columns: int
) -> dict[str, npt.NDArray[Any]]:
    """The plain tensors of a matrix of so many columns; the inverse of `to_rows`."""
    found, at = {}, 0
    for tensor in plain_tensors(fmt, len(data), columns):
        size = tensor.shape[1] * np.dtype(tensor.dtype).itemsize
        part = np.ascontiguousarray(data[:, at : at + size])
        found[tensor.part] = part.view(tensor.dtype)
        at += size
    return found


def format_of(kind: str) -> WeightFormat | None:
    """The quantized format that a tensor's kind names, if it does."""
    try:
        fmt = WeightFormat.parse(kind)
    except ValueError:
        return None
    return fmt if fmt.quantized else None
