"""Writes APK archives: aligned, in a given order, with the same bytes for the same content.

The format is PKWARE's APPNOTE 4.5 without ZIP64. Alignment is the extra field 0xd935 that
Android's zipalign and apksig use, so that signing keeps it.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness import files

# Libraries are mapped by the linker in place, on phones with pages of 16 KB too.
LIBRARY_ALIGNMENT = 16384
ALIGNMENT = 4
MAX_BYTES = (1 << 32) - 1

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_ALIGNMENT_EXTRA = struct.Struct("<HHH")
_ALIGNMENT_ID = 0xD935
_VERSION = 20
_UTF8 = 0x0800
_STORED = 0
_DEFLATED = 8
# 1981-01-01 00:00:00, the time that Android's own tools write.
_DATE = (1981 - 1980) << 9 | 1 << 5 | 1
_TIME = 0


@dataclass(frozen=True)
class Entry:
    """A file of the archive; a stored one is aligned, a compressed one is not."""

    name: str
    content: bytes
    stored: bool

    @property
    def alignment(self) -> int:
        """The multiple of bytes at which the content begins; 1 where it does not matter."""
        if not self.stored:
            return 1
        return LIBRARY_ALIGNMENT if self.name.endswith(".so") else ALIGNMENT


def entries_of(archive: Path) -> Iterator[Entry]:
    """The entries of an existing archive in its order, each compressed or not as it is there."""
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            yield Entry(info.filename, source.read(info), info.compress_type == _STORED)


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Write an archive of `entries` in their order.

    Raises `ValueError` for a name that occurs twice or an archive of 4 GiB or more, and
    `StageFailed` when the disk is full.
    """
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} would be in the archive twice")
    with files.atomic_file(path) as file:
        directory = b"".join(_write_entry(file, entry) for entry in entries)
        begin = file.tell()
        if begin + len(directory) > MAX_BYTES:
            raise ValueError(f"{path.name} would be larger than 4 GiB")
        count = len(entries)
        file.write(directory)
        file.write(_END.pack(0x06054B50, 0, 0, count, count, len(directory), begin, 0))


def _write_entry(file: BinaryIO, entry: Entry) -> bytes:
    """Write an entry and return its record for the central directory."""
    name = entry.name.encode()
    body = entry.content if entry.stored else _deflate(entry.content)
    method = _STORED if entry.stored else _DEFLATED
    offset = file.tell()
    extra = _padding(offset + _LOCAL.size + len(name), entry.alignment)
    common = (_VERSION, _UTF8, method, _TIME, _DATE, zlib.crc32(entry.content))
    sizes = (len(body), len(entry.content))
    file.write(_LOCAL.pack(0x04034B50, *common, *sizes, len(name), len(extra)))
    file.write(name + extra)
    file.write(body)
    record = _CENTRAL.pack(0x02014B50, _VERSION, *common, *sizes, len(name), 0, 0, 0, 0, 0, offset)
    return record + name


def _padding(offset: int, alignment: int) -> bytes:
    """The extra field after which the content begins at a multiple of `alignment`."""
    if alignment == 1:
        return b""
    zeros = -(offset + _ALIGNMENT_EXTRA.size) % alignment
    return _ALIGNMENT_EXTRA.pack(_ALIGNMENT_ID, 2 + zeros, alignment) + bytes(zeros)


def _deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()
