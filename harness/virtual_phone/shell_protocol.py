"""Packets inside a shell-v2 stream (AOSP `shell_protocol.h`)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

STDIN = 0
STDOUT = 1
STDERR = 2
EXIT = 3
CLOSE_STDIN = 4
WINDOW_SIZE = 5

_HEADER = struct.Struct("<BI")


def pack(kind: int, data: bytes | bytearray | memoryview) -> bytes:
    """One packet: kind, length, data."""
    return _HEADER.pack(kind, len(data)) + bytes(data)


class Unpacker:
    """Cuts a stream of bytes into packets, however it arrives."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """The (kind, data) pairs that are complete now."""
        self._rest += data
        packets: list[tuple[int, bytes]] = []
        start = 0
        while len(self._rest) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._rest, start)
            end = start + _HEADER.size + length
            if end > len(self._rest):
                break
            packets.append((kind, bytes(self._rest[start + _HEADER.size : end])))
            start = end
        del self._rest[:start]
        return packets


@dataclass(frozen=True)
class WindowSize:
    """A terminal's size in characters and in pixels."""

    rows: int
    columns: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: bytes) -> WindowSize | None:
        """Read "24x80,0x0", None if it is something else."""
        try:
            characters, _, pixels = text.rstrip(b"\0").partition(b",")
            rows, columns = (int(part) for part in characters.split(b"x"))
            width, height = (int(part) for part in pixels.split(b"x"))
        except ValueError:
            return None
        values = (rows, columns, width, height)
        return cls(*values) if all(0 <= value < 65536 for value in values) else None

    def pack(self) -> bytes:
        """The kernel's struct winsize."""
        return struct.pack("4H", self.rows, self.columns, self.width, self.height)
