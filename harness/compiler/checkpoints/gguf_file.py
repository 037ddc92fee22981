"""The GGUF container, read strictly: nothing in a damaged or hostile file is believed.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The file is mapped, so that a
tensor costs memory only while it is used. `gguf` from PyPI knows the block types; its reader is
not used because it trusts counts and offsets and takes seconds for a vocabulary.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from harness.compiler.checkpoints.mapped_file import map_file, unreadable
from harness.compiler.checkpoints.stored_values import decode

MAX_KEY_BYTES = 65_535
MAX_DIMENSIONS = 4
# The largest headers, with a vocabulary of 262,144 tokens, have 20 MB and 1.5 million entries.
MAX_HEADER_BYTES = 128 << 20
MAX_ENTRIES = 8 << 20
MAX_TENSORS = 1 << 16
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file: its rows as stored, and what they mean."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as numpy has it (the file stores the opposite order)."""
    type: GGMLQuantizationType
    data: npt.NDArray[np.uint8]
    """The stored bytes, [rows, bytes of a row], mapped and read-only."""

    def values(self) -> npt.NDArray[np.float32]:
        """The values in float32, shape `shape`."""
        return decode(self.type.name, self.data).reshape(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """Metadata and tensors of a GGUF file."""

    path: Path
    metadata: Mapping[str, Any]
    """Scalars as Python values, strings as `str`, arrays as lists."""
    tensors: Mapping[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file and map its tensors.

    Raises `StageFailed` with the reason if the file is not there, is not GGUF version 2 or 3, is
    truncated or contradicts itself.
    """
    mapped = map_file(path, "GGUF")
    try:
        return _Reader(path, mapped).read()
    except _Malformed as problem:
        raise unreadable(path, "GGUF", str(problem)) from problem


class _Malformed(Exception):
    pass


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0
        self.entries = 0

    def read(self) -> GgufFile:
        if self.take(4) != b"GGUF":
            raise _Malformed("it does not begin with the letters GGUF")
        version = self.number(_U32)
        if version not in (2, 3):
            swapped = struct.unpack(">I", struct.pack("<I", version))[0]
            kind = "big-endian file" if swapped in (2, 3) else f"version {version}"
            raise _Malformed(f"{kind} is not supported (versions 2 and 3, little-endian, are)")
        tensor_count, pair_count = self.number(_U64), self.number(_U64)
        metadata: dict[str, Any] = {}
        for _ in range(self.plausible(pair_count, 13, "metadata entries")):
            key = self.string(MAX_KEY_BYTES)
            if key in metadata:
                raise _Malformed(f"the key {key!r} occurs twice")
            metadata[key] = self.value(self.number(_U32))
        self.plausible(tensor_count, 24, "tensors")
        if tensor_count > MAX_TENSORS:
            raise _Malformed(f"it announces {tensor_count} tensors")
        heads = [self.tensor_head() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise _Malformed(f"general.alignment is {alignment!r}")
        base = -(-self.at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in heads:
            if name in tensors:
                raise _Malformed(f"the tensor {name!r} occurs twice")
            tensors[name] = self.tensor(name, shape, kind, base, offset, alignment)
        return GgufFile(self.path, metadata, tensors)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise _Malformed(f"it ends at byte {len(self.data)}, inside its header: truncated?")
        if end > MAX_HEADER_BYTES:
            raise _Malformed(f"its header has more than {MAX_HEADER_BYTES} bytes")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def plausible(self, count: int, least_bytes: int, what: str) -> int:
        """A count, refused if the rest of the file could not hold that many."""
        if count * least_bytes > len(self.data) - self.at:
            raise _Malformed(f"it announces {count} {what}, more than it has bytes for: truncated?")
        self.entries += count
        if self.entries > MAX_ENTRIES:
            raise _Malformed(f"it announces {count} {what}, more than any model has")
        return count

    def string(self, limit: int | None = None) -> str:
        length = self.number(_U64)
        if limit is not None and length > limit:
            raise _Malformed(f"a name of {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as problem:
            raise _Malformed(f"a string before byte {self.at} is not UTF-8") from problem

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, count = self.number(_U32), self.number(_U64)
            if item == _STRING:
                return [self.string() for _ in range(self.plausible(count, 8, "strings"))]
            form = _SCALARS.get(item)
            if form is None:
                raise _Malformed(f"an array of the unknown or nested type {item}")
            raw = self.take(self.plausible(count, form.size, "values") * form.size)
            return [number for (number,) in form.iter_unpack(raw)]
        form = _SCALARS.get(kind)
        if form is None:
            raise _Malformed(f"the unknown value type {kind}")
        return self.number(form)

    def tensor_head(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name = self.string(MAX_KEY_BYTES)
        dimensions = self.number(_U32)
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise _Malformed(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.number(_U64) for _ in range(dimensions))[::-1]
        number = self.number(_U32)
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as problem:
            raise _Malformed(f"tensor {name!r} has the unknown type {number}") from problem
        return name, shape, kind, self.number(_U64)

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: GGMLQuantizationType,
        base: int,
        offset: int,
        alignment: int,
    ) -> GgufTensor:
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if min(shape) < 1 or shape[-1] % block:
            raise _Malformed(f"tensor {name!r} has the shape {list(shape)} in blocks of {block}")
        row_bytes = shape[-1] // block * block_bytes
        rows = prod(shape[:-1])
        begin, end = base + offset, base + offset + rows * row_bytes
        if offset % alignment:
            raise _Malformed(f"tensor {name!r} is not aligned")
        if end > len(self.data):
            raise _Malformed(
                f"tensor {name!r} ends at byte {end}, the file at {len(self.data)}: truncated?"
            )
        flat = np.frombuffer(self.data, np.uint8, rows * row_bytes, begin)
        return GgufTensor(name, shape, kind, flat.reshape(rows, row_bytes))
