"""Which classes a dex file defines (the header and tables of Android's dex format)."""

from __future__ import annotations

import struct
from pathlib import Path

from harness.errors import StageFailed

_MAGIC = b"dex\n"
_LITTLE_ENDIAN = 0x12345678
_CLASS_BYTES = 32


def classes(path: Path) -> frozenset[str]:
    """The classes that a dex file defines, such as "dev.alc.app.MainActivity".

    Raises `StageFailed` if the file is no dex file.
    """
    return classes_in(path.read_bytes(), path.name)


def classes_in(data: bytes, name: str = "classes.dex") -> frozenset[str]:
    """The classes that the dex file with these bytes defines; errors call it `name`."""
    try:
        if data[:4] != _MAGIC or struct.unpack_from("<I", data, 40)[0] != _LITTLE_ENDIAN:
            raise ValueError("it does not begin as one")
        _, strings, types_count, types = struct.unpack_from("<4I", data, 56)
        count, definitions = struct.unpack_from("<2I", data, 96)
        found = set()
        for number in range(count):
            (kind,) = struct.unpack_from("<I", data, definitions + number * _CLASS_BYTES)
            if kind >= types_count:
                raise ValueError(f"there is no type {kind}")
            (string,) = struct.unpack_from("<I", data, types + 4 * kind)
            (offset,) = struct.unpack_from("<I", data, strings + 4 * string)
            found.add(_descriptor(data, offset))
    except (struct.error, ValueError, IndexError) as problem:
        raise StageFailed(f"{name} is not a dex file", cause=str(problem)) from problem
    return frozenset(found)


def _descriptor(data: bytes, offset: int) -> str:
    """The class whose descriptor, Lsome/Name; after a ULEB128 length, stands at `offset`."""
    while data[offset] & 0x80:
        offset += 1
    end = data.index(b"\0", offset)
    text = data[offset + 1 : end].decode("utf-8", "replace")
    return text.removeprefix("L").removesuffix(";").replace("/", ".")
