"""The packed weight layout `rows8/1`: what its tensors are, and the way there and back.

The package's docstring states the layout byte by byte. This module needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LAYOUT = "rows8/1"
ROWS = 8
GROUP = 32
SYMMETRIC_ZERO = 7
"""The nibble that stands for zero in MLC's symmetric 4-bit formats."""


class _Kind(NamedTuple):
    """What the name of a format says; its first group size is the one that goes unsaid."""

    bits: int
    dtype: str
    groups: tuple[int, ...]
    zero: int = 0
    has_minimum: bool = False


_GROUPS = (32, 64, 128)
_KINDS = {
    "q3_sym_f16": _Kind(3, "float16", (40,), zero=3),
    "q4_1": _Kind(4, "float16", (32,), has_minimum=True),
    "q4_sym_f16": _Kind(4, "float16", _GROUPS, zero=SYMMETRIC_ZERO),
    "q4_sym_bf16": _Kind(4, "bfloat16", _GROUPS, zero=SYMMETRIC_ZERO),
    "q4_sym_f32": _Kind(4, "float32", _GROUPS, zero=SYMMETRIC_ZERO),
    "q8_0": _Kind(8, "float16", _GROUPS),
    "f16": _Kind(16, "float16", (1,)),
    "bf16": _Kind(16, "bfloat16", (1,)),
    "f32": _Kind(32, "float32", (1,)),
}


@dataclass(frozen=True)
class WeightFormat:
    """How the values of a weight matrix are stored: a kind, and how many columns share a scale.

    Raises ValueError for a name that is not known or a group size that its kernels do not have.
    """

    name: str
    group: int
    """Columns that share a scale; 1 if the values are not quantized."""

    Q3_SYM_F16: ClassVar[WeightFormat]
    Q4_1: ClassVar[WeightFormat]
    Q4_SYM_F16: ClassVar[WeightFormat]
    Q4_SYM_BF16: ClassVar[WeightFormat]
    Q4_SYM_F32: ClassVar[WeightFormat]
    Q8_0: ClassVar[WeightFormat]
    F16: ClassVar[WeightFormat]
    BF16: ClassVar[WeightFormat]
    F32: ClassVar[WeightFormat]

    def __post_init__(self) -> None:
        if self.name not in _KINDS:
            raise ValueError(f"{self.name!r} is no weight format; known: {', '.join(_KINDS)}")
        if self.group not in self._kind.groups:
            sizes = ", ".join(map(str, self._kind.groups))
            raise ValueError(f"{self.name} has groups of {sizes}, not of {self.group}")

    @classmethod
    def parse(cls, text: str) -> WeightFormat:
        """The format that `str()` wrote; raises ValueError if there is none."""
        name, slash, group = text.partition("/")
        kind = _KINDS.get(name)
        if kind is None or (slash and not (group.isascii() and group.isdigit())):
            raise ValueError(f"{text!r} is no weight format; known: {', '.join(_KINDS)}")
        return cls(name, int(group) if slash else kind.groups[0])

    def __str__(self) -> str:
        """`q4_sym_f16`, or `q4_sym_f16/64` where the group is not the usual one."""
        usual = self.group == self._kind.groups[0]
        return self.name if usual else f"{self.name}/{self.group}"

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.name]

    @property
    def quantized(self) -> bool:
        """Whether values are integers with a scale a group."""
        return self.bits <= 8

    @property
    def bits(self) -> int:
        """Bits of one stored value, without its share of the scale."""
        return self._kind.bits

    @property
    def zero(self) -> int:
        """The stored integer that stands for zero."""
        return self._kind.zero

    @property
    def has_minimum(self) -> bool:
        return self._kind.has_minimum

    @property
    def dtype(self) -> str:
        """The type of a group's scale, or of the values themselves if they have none."""
        return self._kind.dtype

    @property
    def scale_dtype(self) -> str | None:
        """The type of a group's scale; None if there are no groups."""
        return self.dtype if self.quantized else None

    @property
    def step(self) -> int:
        """Columns that kernels take at once: a group of activations in int8 is as large."""
        return 40 if self.bits == 3 else GROUP

    def steps(self, k: int) -> int:
        """The steps of a row of `k` columns, the last of them filled up where that is allowed."""
        return -(-k // self.step)

    def groups(self, k: int) -> int:
        """The groups of a row of `k` columns."""
        return -(-k // self.group)

    @property
    def words(self) -> int:
        """int32 words that hold a row's share of a step."""
        return 8 if self.bits == 8 else 4


for _name, _values in _KINDS.items():
    setattr(WeightFormat, _name.upper(), WeightFormat(_name, _values.groups[0]))


@dataclass(frozen=True)
class PackedTensor:
    """One tensor of a packed matrix."""

    part: str
    """`weight`, `q_weight`, `q_scale` or `q_min`: MLC's names."""
    shape: tuple[int, ...]
    dtype: str
    """numpy's name; bfloat16 values are their bits, as uint16."""


def packed_tensors(fmt: WeightFormat, rows: int, k: int) -> tuple[PackedTensor, ...]:
    """The tensors of a packed [rows, k] matrix, in the order in which kernels take them.

    Raises ValueError if a size is not positive or k is not a multiple of 32 and of the group;
    q3_sym_f16 takes any k and fills its last group up with columns that count for nothing.
    """
    multiple = 1 if fmt.bits == 3 else max(GROUP, fmt.group)
    if rows < 1 or k < 1 or k % multiple:
        raise ValueError(
            f"a {rows} x {k} matrix cannot be packed as {fmt}: {k} must be a multiple of {multiple}"
        )
    blocks, dtype = -(-rows // ROWS), _stored_as(fmt.dtype)
    if not fmt.quantized:
        return (PackedTensor("weight", (blocks, k, ROWS), dtype),)
    tensors = [
        PackedTensor("q_weight", (blocks, fmt.steps(k), fmt.words * ROWS), "int32"),
        PackedTensor("q_scale", (blocks, fmt.groups(k), ROWS), dtype),
    ]
    if fmt.has_minimum:
        tensors.append(PackedTensor("q_min", (blocks, fmt.groups(k), ROWS), dtype))
    return tuple(tensors)


def plain_tensors(fmt: WeightFormat, rows: int, k: int) -> tuple[PackedTensor, ...]:
    """The tensors of the same matrix in the plain form (`pack` takes them, `unpack` gives them)."""
    first, *rest = packed_tensors(fmt, rows, k)
    if not fmt.quantized:
        return (PackedTensor("weight", (rows, k), first.dtype),)
    if fmt.bits == 8:
        q_weight = PackedTensor("q_weight", (rows, k), "int8")
    else:
        q_weight = PackedTensor("q_weight", (rows, fmt.steps(k) * fmt.words), "uint32")
    return (q_weight, *(PackedTensor(t.part, (rows, fmt.groups(k)), t.dtype) for t in rest))


def pack(fmt: WeightFormat, plain: Mapping[str, Array]) -> dict[str, Array]:
    """The packed tensors of a matrix, by part, from its plain ones.

    Raises ValueError if a tensor is missing or has another shape or type than `plain_tensors` says,
    or if a word of 3-bit values has one of its two highest bits set, which belong to no value.
    """
    rows, k = _plain_size(fmt, plain)
    _check(plain, plain_tensors(fmt, rows, k))
    packed: dict[str, Array] = {}
    for tensor in packed_tensors(fmt, rows, k):
        values = _pad_rows(plain[tensor.part])
        if tensor.part == "q_weight":
            bytes_ = _packed_bytes(fmt, values)
            chunks = bytes_.reshape(-1, ROWS, fmt.steps(k), fmt.words, 4).transpose(0, 2, 3, 1, 4)
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
    first = packed.get("q_weight" if fmt.quantized else "weight")
    if first is None or first.ndim != 3:
        raise ValueError(f"{fmt} matrix: its first tensor is missing or not of three dimensions")
    k = first.shape[1] * (fmt.step if fmt.quantized else 1)
    _check(packed, packed_tensors(fmt, rows, k))
    plain: dict[str, Array] = {}
    for tensor in plain_tensors(fmt, rows, k):
        values = np.ascontiguousarray(packed[tensor.part])
        if tensor.part == "q_weight":
            chunks = values.view(np.uint8).reshape(-1, fmt.steps(k), fmt.words, ROWS, 4)
            bytes_ = np.ascontiguousarray(chunks.transpose(0, 3, 1, 2, 4))
            values = _plain_words(fmt, bytes_.reshape(-1, fmt.steps(k) * fmt.words * 4))
        else:
            values = np.ascontiguousarray(values.transpose(0, 2, 1))
            values = values.reshape(-1, values.shape[-1])
        plain[tensor.part] = np.ascontiguousarray(values[:rows])
    return plain


def dequantize(fmt: WeightFormat, plain: Mapping[str, Array]) -> NDArray[np.float32]:
    """The float32 values [rows, k] that the plain tensors of a matrix stand for.

    For q3_sym_f16, k is a multiple of 40: what fills up the last group is among the columns.
    """
    rows, k = _plain_size(fmt, plain)
    _check(plain, plain_tensors(fmt, rows, k))
    if not fmt.quantized:
        return widen(plain["weight"], fmt.dtype)
    q = integers(fmt, plain["q_weight"]).astype(np.float32) - np.float32(fmt.zero)
    values = q.reshape(rows, -1, fmt.group) * widen(plain["q_scale"], fmt.dtype)[..., None]
    if fmt.has_minimum:
        values += widen(plain["q_min"], fmt.dtype)[..., None]
    return values.reshape(rows, k)


def integers(fmt: WeightFormat, q_weight: Array) -> Array:
    """The stored integers [rows, k] of a plain `q_weight`, one byte each."""
    if fmt.bits == 8:
        return q_weight
    return words_to_nibbles(q_weight) if fmt.bits == 4 else words_to_threes(q_weight)


def narrow(values: NDArray[np.float32], dtype: str) -> Array:
    """Float32 values as tensors hold them in "float32", "float16" or "bfloat16" (as uint16).

    Rounds to nearest, ties to even.
    """
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    # Half of what is cut off, less one if that would make an odd result of a tie.
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype(np.uint16)


def widen(stored: Array, dtype: str) -> NDArray[np.float32]:
    """The float32 values of what `narrow` gives; exact."""
    if dtype != "bfloat16":
        return stored.astype(np.float32)
    return (stored.astype(np.uint32) << 16).view(np.float32)


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


def threes_to_words(values: Array) -> NDArray[np.uint32]:
    """MLC's words u32[rows, k/10] from values 0..7 [rows, k]; the two highest bits stay 0."""
    if values.min(initial=0) < 0 or values.max(initial=0) > 7:
        raise ValueError("a 3-bit value lies outside 0..7")
    tens = values.reshape(len(values), -1, 10)
    words = np.zeros(tens.shape[:2], np.uint32)
    for j in range(10):
        words |= tens[..., j].astype(np.uint32) << np.uint32(3 * j)
    return words


def words_to_threes(words: Array) -> NDArray[np.uint8]:
    """Values 0..7 [rows, k] from MLC's words u32[rows, k/10]."""
    parts = [(words >> np.uint32(3 * j) & np.uint32(7)).astype(np.uint8) for j in range(10)]
    return np.stack(parts, axis=-1).reshape(len(words), -1)


def _packed_bytes(fmt: WeightFormat, plain: Array) -> NDArray[np.uint8]:
    """The bytes of each row of the packed layout, word after word of each step."""
    if fmt.bits == 8:
        return plain.view(np.uint8)
    if fmt.bits == 4:
        eights = words_to_nibbles(plain).reshape(len(plain), -1, 2, 4)
        return eights[:, :, 0] | eights[:, :, 1] << np.uint8(4)
    if (plain >> 30).any():
        raise ValueError("q_weight has words with more than ten 3-bit values")
    quads = words_to_threes(plain).reshape(len(plain), -1, 10, 4)
    bytes_ = quads[:, :, 0:8:2] | quads[:, :, 1:8:2] << np.uint8(3)
    bytes_[:, :, 0::2] |= quads[:, :, 8:] << np.uint8(6)
    bytes_[:, :, 1::2] |= quads[:, :, 8:] >> np.uint8(2) << np.uint8(6)
    return bytes_


def _plain_words(fmt: WeightFormat, bytes_: NDArray[np.uint8]) -> Array:
    """The plain words of rows of bytes; the inverse of `_packed_bytes`."""
    if fmt.bits == 8:
        return bytes_.view(np.int8)
    if fmt.bits == 4:
        fours = bytes_.reshape(len(bytes_), -1, 1, 4)
        eights = np.concatenate([fours & 15, fours >> 4], axis=2)
        return nibbles_to_words(eights.reshape(len(bytes_), -1))
    words = bytes_.reshape(len(bytes_), -1, 4, 4)
    pairs = np.stack([words & 7, words >> 3 & 7], axis=3).reshape(*words.shape[:2], 8, 4)
    last = words[:, :, 0::2] >> 6 | (words[:, :, 1::2] >> 6 & 1) << 2
    quads = np.concatenate([pairs, last], axis=2)
    return threes_to_words(quads.reshape(len(bytes_), -1))


def _stored_as(dtype: str) -> str:
    return "uint16" if dtype == "bfloat16" else dtype


def _pad_rows(values: Array) -> Array:
    missing = -len(values) % ROWS
    return np.ascontiguousarray(np.pad(values, ((0, missing), (0, 0))))


def _plain_size(fmt: WeightFormat, plain: Mapping[str, Array]) -> tuple[int, int]:
    first = plain.get("q_weight" if fmt.quantized else "weight")
    if first is None or first.ndim != 2:
        raise ValueError(f"{fmt} matrix: its first tensor is missing or not of two dimensions")
    rows, width = first.shape
    return rows, width * (32 // fmt.bits if fmt.bits < 8 else 1)


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
