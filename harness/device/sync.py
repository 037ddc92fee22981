"""File transfer over adb's sync service, with every answer of the device read.

Only SEND and RECV are used: their sizes are not bounded by 32 bits, unlike those of STAT (see
AOSP's packages/modules/adb/SYNC.TXT).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from harness.device import server

# The most that one DATA packet may hold.
DATA_MAX = 1 << 16
# Regular file, readable by all: apps must be able to map what the shell user pushed.
MODE = 0o100644
_PACKET = struct.Struct("<4sI")


class Failed(Exception):
    """The device refused a transfer; the text is its reason."""


def send_file(
    connection: socket.socket,
    source: BinaryIO,
    remote: str,
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `source` to the device's file `remote`.

    Raises `Failed` with the device's reason as soon as it gives one, and `server.Broken`.
    """
    path = f"{remote},{MODE}".encode()
    server.send(connection, _PACKET.pack(b"SEND", len(path)) + path)
    sent = 0
    try:
        while block := source.read(DATA_MAX):
            if select.select([connection], [], [], 0)[0]:
                break  # the device speaks before its turn: it has failed
            server.send(connection, _PACKET.pack(b"DATA", len(block)) + block)
            sent += len(block)
            if progress is not None:
                progress(sent)
        else:
            server.send(connection, _PACKET.pack(b"DONE", int(time.time())))
    except server.Broken:
        # What the device said before it hung up explains more than the broken pipe.
        _read_status(connection)
        raise
    _read_status(connection)


def receive_file(connection: socket.socket, remote: str) -> Iterator[bytes]:
    """Yield the blocks of the device's file `remote`. Raises `Failed`, `server.Broken`."""
    path = remote.encode()
    server.send(connection, _PACKET.pack(b"RECV", len(path)) + path)
    while True:
        kind, length = _PACKET.unpack(server.receive_exactly(connection, _PACKET.size))
        if kind == b"DONE":
            return
        if kind == b"FAIL":
            raise Failed(server.receive_exactly(connection, length).decode("utf-8", "replace"))
        if kind != b"DATA" or length > DATA_MAX:
            raise server.Broken(f"the device sent {kind!r} of {length} bytes")
        yield server.receive_exactly(connection, length)


def _read_status(connection: socket.socket) -> None:
    kind, length = _PACKET.unpack(server.receive_exactly(connection, _PACKET.size))
    if kind == b"FAIL":
        raise Failed(server.receive_exactly(connection, length).decode("utf-8", "replace"))
    if kind != b"OKAY":
        raise server.Broken(f"the device sent {kind!r} as a status")
