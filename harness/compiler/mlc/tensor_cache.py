"""Weights in shards, described by a tensor cache: how TVM stores a model's parameters.

`tensor-cache.json` (before 2025 `ndarray-cache.json`) has the records of each shard: a tensor's
name, shape, type and place. Format: tvm/contrib/tvmjs.py, `dump_tensor_cache`. What is read is
mapped, so that a tensor costs memory only while it is used, and nothing that the file says is
believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import files
from harness.compiler.checkpoints.json_object import read_json_object
from harness.compiler.sources.needed_files import MLC_CACHES
from harness.errors import StageFailed

SHARD_BYTES = 32 << 20
"""A shard has no more, unless a tensor alone has."""
_SHARD = re.compile(r"params_shard_[0-9]{1,9}\.bin")
_DTYPES = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "uint32": "<u4",
    "int32": "<i4",
    "uint16": "<u2",
    "uint8": "u1",
    "int8": "i1",
}
_MAX_DIMENSIONS = 8
_HALVED = "f32-to-bf16"
"""The format of what was float32 and is stored as bfloat16; every other record is `raw`."""


@dataclass(frozen=True, eq=False)
class Record:
    """A tensor of a tensor cache."""

    path: Path
    name: str
    dtype: str
    """numpy's name of the stored type, or bfloat16."""
    values: npt.NDArray[Any]
    """Mapped and read-only, in the tensor's shape; of bfloat16 the bits, as uint16."""


def read_tensor_cache(folder: Path) -> Mapping[str, Record]:
    """The tensors of a folder by name, in the order of its records.

    Raises `StageFailed` if the cache or a shard is missing or damaged: a shard must have the size
    and, where the cache has one, the MD5 sum that it is listed with.
    """
    path = next((folder / name for name in MLC_CACHES if (folder / name).is_file()), None)
    if path is None:
        raise _damaged(folder, f"it has no {' or '.join(MLC_CACHES)}")
    document = read_json_object(path)
    found: dict[str, Record] = {}
    seen: set[str] = set()
    for shard in _objects(path, document.get("records"), "records"):
        name = shard.get("dataPath")
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise _damaged(path, f"it names the shard {name!r:.100}")
        if name in seen:
            raise _damaged(path, f"it lists {name} twice")
        seen.add(name)
        for record in _records(path, folder / name, shard):
            if record.name in found:
                raise _damaged(path, f"it has {record.name!r:.100} twice")
            found[record.name] = record
    return found


def _records(cache: Path, path: Path, shard: Mapping[str, Any]) -> Iterator[Record]:
    if shard.get("format") != "raw-shard":
        raise _damaged(cache, f"{path.name} has the format {shard.get('format')!r:.60}")
    try:
        size = path.stat().st_size
        if shard.get("nbytes") != size:
            raise _damaged(path, f"it has {size} bytes, listed are {shard.get('nbytes')!r:.60}")
        entries = _objects(cache, shard.get("records"), f"the records of {path.name}")
        if size == 0 and entries:
            raise _damaged(path, "it is empty")
        md5 = shard.get("md5sum")
        if md5 is not None and _md5(path) != md5:
            raise _damaged(path, "its MD5 sum is another than listed")
        data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as problem:
        raise _damaged(path, problem.strerror or str(problem)) from problem
    for entry in entries:
        yield _record(cache, path, entry, data)


def _record(
    cache: Path, path: Path, entry: Mapping[str, Any], data: npt.NDArray[np.uint8]
) -> Record:
    name, shape, dtype, form, begin, size = (
        entry.get(key) for key in ("name", "shape", "dtype", "format", "byteOffset", "nbytes")
    )
    if not isinstance(name, str):
        raise _damaged(cache, f"a tensor's name is {name!r:.100}")
    where = f"the tensor {name!r:.100}"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _damaged(cache, f"{where} has the type {dtype!r:.60}")
    if form not in ("raw", _HALVED):
        raise _damaged(cache, f"{where} has the format {form!r:.60}")
    if form == _HALVED and dtype == "float32":
        dtype = "bfloat16"
    if not isinstance(shape, list) or not 0 < len(shape) <= _MAX_DIMENSIONS:
        raise _damaged(cache, f"{where} has the shape {shape!r:.100}")
    if not all(type(value) is int and 0 < value < 2**40 for value in shape):
        raise _damaged(cache, f"{where} has the shape {shape!r:.100}")
    if type(size) is not int or type(begin) is not int or not 0 <= begin <= len(data) - size:
        raise _damaged(
            cache,
            f"{where} has {size!r:.60} bytes at {begin!r:.60}, {path.name} has {len(data)}",
        )
    stored = np.dtype(_DTYPES[dtype])
    if size != prod(shape) * stored.itemsize:
        raise _damaged(cache, f"{where} has {size} bytes, its shape {shape} takes others")
    values = np.frombuffer(data, stored, prod(shape), begin).reshape(shape)
    return Record(path, name, dtype, values)


def _objects(path: Path, values: Any, what: str) -> list[Mapping[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise _damaged(path, f"{what} are no list of objects")
    return values


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def write_tensor_cache(
    folder: Path,
    tensors: Iterable[tuple[str, str, npt.NDArray[Any]]],
    metadata: Mapping[str, object],
    alignment: int = 1,
) -> int:
    """Write tensors into shards and `tensor-cache.json`; return the bytes of all shards.

    A tensor is a name, a type and values, of bfloat16 as uint16; one is in memory at a time, and
    begins at a multiple of `alignment` bytes. Their names come out as the metadata's "params", in
    the order given.
    """
    shards: list[dict[str, Any]] = []
    names: list[str] = []
    writer: _Shard | None = None
    for name, dtype, tensor in tensors:
        data = np.ascontiguousarray(tensor)
        if writer is not None and writer.next_offset(alignment) + data.nbytes > SHARD_BYTES:
            shards.append(writer.close())
            writer = None
        if writer is None:
            writer = _Shard(folder, f"params_shard_{len(shards)}.bin")
        writer.add(name, dtype, data, alignment)
        names.append(name)
    if writer is not None:
        shards.append(writer.close())
    total = sum(int(shard["nbytes"]) for shard in shards)
    document = {
        "metadata": {**metadata, "ParamSize": len(names), "ParamBytes": total, "params": names},
        "records": shards,
    }
    files.write_json(folder / MLC_CACHES[0], document)
    return total


class _Shard:
    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.size = 0
        self.records: list[dict[str, Any]] = []
        self.file = (folder / name).open("wb")
        self.md5 = hashlib.md5(usedforsecurity=False)

    def next_offset(self, alignment: int) -> int:
        return -(-self.size // alignment) * alignment

    def add(self, name: str, dtype: str, data: npt.NDArray[Any], alignment: int) -> None:
        begin = self.next_offset(alignment)
        for part in (b"\0" * (begin - self.size), data.data):
            self.file.write(part)
            self.md5.update(part)
        self.records.append(
            {
                "name": name,
                "shape": list(data.shape),
                "dtype": dtype,
                "format": "raw",
                "nbytes": data.nbytes,
                "byteOffset": begin,
            }
        )
        self.size = begin + data.nbytes

    def close(self) -> dict[str, Any]:
        self.file.close()
        return {
            "dataPath": self.name,
            "format": "raw-shard",
            "nbytes": self.size,
            "records": self.records,
            "md5sum": self.md5.hexdigest(),
        }


def _damaged(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"cannot read {path.name} as weights that MLC compiled",
        cause=cause,
        remedy=f"ls -l {path}   # copy or fetch the whole folder again",
    )
