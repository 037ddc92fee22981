"""The packed weight layout `rows8/1`: what its tensors are, and the way there and back.

The package's docstring states the layout byte by byte. This module needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LAYOUT = "rows8/1"
ROWS = 8
GROUP = 32
SYMMETRIC_ZERO = 7
"""The nibble that stands for zero in MLC's symmetric 4-bit formats."""


class WeightFormat(StrEnum):
    """How the values of a weight matrix are stored."""

    Q4_1 = "q4_1"
    Q4_SYM_F16 = "q4_sym_f16"
    Q4_SYM_F32 = "q4_sym_f32"
    Q8_0 = "q8_0"
    F32 = "f32"

    @property
    def bits(self) -> int:
        """Bits of one stored value, without its share of the scale."""
        return {WeightFormat.Q8_0: 8, WeightFormat.F32: 32}.get(self, 4)

    @property
    def scale_dtype(self) -> str | None:
        """The type of a group's scale; None if there are no groups."""
        if self is WeightFormat.F32:
            return None
        return "float32" if self is WeightFormat.Q4_SYM_F32 else "float16"

    @property
    def has_minimum(self) -> bool:
        return self is WeightFormat.Q4_1


@dataclass(frozen=True)
class PackedTensor:
    """One tensor of a packed matrix."""

    part: str
    """`weight`, `q_weight`, `q_scale` or `q_min`: MLC's names."""
    shape: tuple[int, ...]
    dtype: str


def packed_tensors(fmt: WeightFormat, rows: int, k: int) -> tuple[PackedTensor, ...]:
    """The tensors of a packed [rows, k] matrix, in the order in which kernels take them.

    Raises ValueError if k is not a multiple of 32 or a size is not positive.
    """
    if rows < 1 or k < 1 or k % GROUP:
        raise ValueError(f"a {rows} x {k} matrix cannot be packed: {k} must be a multiple of 32")
    blocks, groups = -(-rows // ROWS), k // GROUP
    if fmt is WeightFormat.F32:
        return (PackedTensor("weight", (blocks, k, ROWS), "float32"),)
    scale_dtype = fmt.scale_dtype
    assert scale_dtype is not None
    tensors = [
        PackedTensor("q_weight", (blocks, groups, fmt.bits * ROWS), "int32"),
        PackedTensor("q_scale", (blocks, groups, ROWS), scale_dtype),
    ]
    if fmt.has_minimum:
        tensors.append(PackedTensor("q_min", (blocks, groups, ROWS), scale_dtype))
    return tuple(tensors)


def plain_tensors(fmt: WeightFormat, rows: int, k: int) -> tuple[PackedTensor, ...]:
    """The tensors of the same matrix in the plain form (`pack` takes them, `unpack` gives them)."""
    if fmt is WeightFormat.F32:
        return (PackedTensor("weight", (rows, k), "float32"),)
    if fmt is WeightFormat.Q8_0:
        q_weight = PackedTensor("q_weight", (rows, k), "int8")
    else:
        q_weight = PackedTensor("q_weight", (rows, k // 8), "uint32")
    rest = packed_tensors(fmt, rows, k)[1:]
    return (q_weight, *(PackedTensor(t.part, (rows, k // GROUP), t.dtype) for t in rest))


def pack(fmt: WeightFormat, plain: Mapping[str, Array]) -> dict[str, Array]:
    """The packed tensors of a matrix, by part, from its plain ones.

    Raises ValueError if a tensor is missing or has another shape or type than `plain_tensors` says.
    """
    rows, k = _plain_size(fmt, plain)
    _check(plain, plain_tensors(fmt, rows, k))
    packed: dict[str, Array] = {}
    for tensor in packed_tensors(fmt, rows, k):
        values = _pad_rows(plain[tensor.part])
        if tensor.part == "q_weight":
            bytes_ = values.view(np.uint8) if fmt is WeightFormat.Q8_0 else _nibble_pairs(values)
            chunks = bytes_.reshape(-1, ROWS, k // GROUP, fmt.bits, 4).transpose(0, 2, 3, 1, 4)
            values = np.ascontiguousarray(chunks).view(np.int32)
        else:
            values = values.reshape(-1, ROWS, values.shape[1]).transpose(0, 2, 1)
        packed[tensor.part] = np.ascontiguousarray(values).reshape(tensor.shape)
    return packed


def unpack(fmt: WeightFormat, packed: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """The plain tensors of a packed matrix of `rows` rows; the inverse of `pack`.

    Raises ValueError if a tensor is missing or has another shape or type than `packed_tensors`
    says.
    """
    first = packed.get("weight" if fmt is WeightFormat.F32 else "q_weight")
    if first is None or first.ndim != 3:
        raise ValueError(f"{fmt} matrix: its first tensor is missing or not of three dimensions")
    k = first.shape[1] * (1 if fmt is WeightFormat.F32 else GROUP)
    _check(packed, packed_tensors(fmt, rows, k))
    plain: dict[str, Array] = {}
    for tensor in plain_tensors(fmt, rows, k):
        values = np.ascontiguousarray(packed[tensor.part])
        if tensor.part == "q_weight":
            chunks = values.view(np.uint8).reshape(-1, k // GROUP, fmt.bits, ROWS, 4)
            bytes_ = np.ascontiguousarray(chunks.transpose(0, 3, 1, 2, 4))
            if fmt is WeightFormat.Q8_0:
                values = bytes_.view(np.int8).reshape(-1, k)
            else:
                values = _nibble_words(bytes_.reshape(-1, k // 2))
        else:
            values = np.ascontiguousarray(values.transpose(0, 2, 1))
            values = values.reshape(-1, values.shape[-1])
        plain[tensor.part] = np.ascontiguousarray(values[:rows])
    return plain


def dequantize(fmt: WeightFormat, plain: Mapping[str, Array]) -> NDArray[np.float32]:
    """The float32 values [rows, k] that the plain tensors of a matrix stand for."""
    rows, k = _plain_size(fmt, plain)
    _check(plain, plain_tensors(fmt, rows, k))
    if fmt is WeightFormat.F32:
        return plain["weight"].astype(np.float32)
    if fmt is WeightFormat.Q8_0:
        q = plain["q_weight"].astype(np.float32)
    else:
        q = words_to_nibbles(plain["q_weight"]).astype(np.float32)
        q -= 0 if fmt.has_minimum else SYMMETRIC_ZERO
    values = q.reshape(rows, -1, GROUP) * plain["q_scale"].astype(np.float32)[..., None]
    if fmt.has_minimum:
        values += plain["q_min"].astype(np.float32)[..., None]
    return values.reshape(rows, k)


def nibbles_to_words(nibbles: Array) -> NDArray[np.uint32]:
    """MLC's words u32[rows, k/8] from values 0..15 [rows, k]."""
    if nibbles.min(initial=0) < 0 or nibbles.max(initial=0) > 15:
        raise ValueError("a 4-bit value lies outside 0..15")
    parts = nibbles.astype(np.uint8).reshape(len(nibbles), -1, 2)
    pairs = parts[..., 0] | parts[..., 1] << np.uint8(4)
    return np.ascontiguousarray(pairs).view(np.uint32)


def words_to_nibbles(words: Array) -> NDArray[np.uint8]:
    """Values 0..15 [rows, k] from MLC's words u32[rows, k/8]."""
    bytes_ = np.ascontiguousarray(words).view(np.uint8)
    return np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).reshape(len(words), -1)


def _nibble_pairs(words: Array) -> NDArray[np.uint8]:
    """Bytes [rows, k/2] of the packed layout: columns j and 4 + j of each eight in one byte."""
    eights = words_to_nibbles(words).reshape(len(words), -1, 2, 4)
    return (eights[:, :, 0] | eights[:, :, 1] << np.uint8(4)).reshape(len(words), -1)


def _nibble_words(pairs: NDArray[np.uint8]) -> NDArray[np.uint32]:
    fours = pairs.reshape(len(pairs), -1, 1, 4)
    eights = np.concatenate([fours & 15, fours >> 4], axis=2)
    return nibbles_to_words(eights.reshape(len(pairs), -1))


def _pad_rows(values: Array) -> Array:
    missing = -len(values) % ROWS
    return np.ascontiguousarray(np.pad(values, ((0, missing), (0, 0))))


def _plain_size(fmt: WeightFormat, plain: Mapping[str, Array]) -> tuple[int, int]:
    first = plain.get("weight" if fmt is WeightFormat.F32 else "q_weight")
    if first is None or first.ndim != 2:
        raise ValueError(f"{fmt} matrix: its first tensor is missing or not of two dimensions")
    rows, width = first.shape
    return rows, width * (8 if fmt.bits == 4 else 1)


def _check(tensors: Mapping[str, Array], expected: tuple[PackedTensor, ...]) -> None:
    for tensor in expected:
        found = tensors.get(tensor.part)
        if found is None:
            raise ValueError(f"{tensor.part} is missing")
        if found.shape != tensor.shape or found.dtype != np.dtype(tensor.dtype):
            raise ValueError(
                f"{tensor.part} is {found.dtype}{list(found.shape)}, "
                f"expected {tensor.dtype}{list(tensor.shape)}"
            )
