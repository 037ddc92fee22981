"""The shell v2 protocol: stdout, stderr and the exit code of a command on the device.

A packet is one byte of stream number, four of length (little endian), and the bytes, as in
AOSP's packages/modules/adb/shell_protocol.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

from harness.device import server

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BI")


def packet(stream: int, body: bytes = b"") -> bytes:
    """One packet."""
    return _HEADER.pack(stream, len(body)) + body


class PacketReader:
    """Takes the bytes of a stream in any pieces and gives back its packets."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (stream number, bytes) for each packet that `data` completes."""
        self._pending += data
        while len(self._pending) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._pending)
            end = _HEADER.size + length
            if len(self._pending) < end:
                return
            body = bytes(self._pending[_HEADER.size : end])
            del self._pending[:end]
            yield stream, body


class LineSplitter:
    """Takes text in any pieces and gives back its lines without their ends (LF or CRLF)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in whole]

    def finish(self) -> list[str]:
        """The last line, where it had no end."""
        return self.feed(b"\n") if self._rest else []


class ShellStream:
    """A command that runs on the device."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._packets = PacketReader()
        self._lines = LineSplitter()
        self._ready: list[str] = []
        self._code: int | None = None
        self._closed = False

    @property
    def exit_code(self) -> int | None:
        """The exit code once the command ended."""
        return self._code

    def collect(self, timeout: float) -> tuple[bytes, bytes]:
        """Wait for the end and return all of stdout and stderr.

        Raises `TimeoutError` past `timeout` seconds, `Broken` when the connection ends before.
        """
        limit = time.monotonic() + timeout
        output = {STDOUT: bytearray(), STDERR: bytearray()}
        with contextlib.suppress(server.Broken):  # a command may end before it has heard this
            server.send(self._connection, packet(CLOSE_STDIN))
        while self._code is None:
            for stream, body in self._receive(limit):
                if stream in output:
                    output[stream] += body
        return bytes(output[STDOUT]), bytes(output[STDERR])

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        """Yield lines of stdout and stderr until the command ends or `close` is called.

        Raises `TimeoutError` after `timeout` seconds without a line; a later call goes on.
        Raises `Broken` when the connection ends without an exit code.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._ready:
                yield self._ready.pop(0)
                limit = None if timeout is None else time.monotonic() + timeout
            if self._code is not None or self._closed:
                return
            for stream, body in self._receive(limit):
                if stream in (STDOUT, STDERR):
                    self._ready += self._lines.feed(body)
            if self._code is not None:
                self._ready += self._lines.finish()

    def _receive(self, limit: float | None) -> list[tuple[int, bytes]]:
        left = None if limit is None else limit - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("the command printed nothing in time")
        try:
            self._connection.settimeout(left)
            data = server.receive(self._connection)
        except TimeoutError:
            raise
        except (server.Broken, OSError) as problem:
            if self._closed:
                return []
            raise server.Broken(str(problem)) from problem
        if not data and not self._closed:
            raise server.Broken("the connection ended before the command did")
        packets = list(self._packets.feed(data))
        for stream, body in packets:
            if stream == EXIT:
                self._code = body[0] if body else 255
        return packets

    def close(self) -> None:
        """End the command, and a `lines` that waits for it in another thread."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
