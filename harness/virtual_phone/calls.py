"""One call of an Android command: its arguments and its standard streams, wherever they lead."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from harness.virtual_phone import shell_protocol
from harness.virtual_phone.streams import Stream, StreamClosed

BLOCK = 1 << 20


class CallerGone(Exception):
    """Whoever called the command no longer listens."""


class Streams(Protocol):
    """The standard streams of a call."""

    descriptors: tuple[int, int, int] | None
    """Where the caller is a program of the phone: its stdin, stdout and stderr."""

    async def write(self, data: bytes, *, error: bool) -> None:
        """Write to stdout or stderr; raises `CallerGone`."""

    async def read(self) -> bytes:
        """The next bytes of stdin, b"" at its end."""


@dataclass
class Call:
    """A command line with its streams. `gone` is set when the caller has left."""

    argv: Sequence[str]
    streams: Streams
    folder: str = "/"
    log_tags: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def arguments(self) -> list[str]:
        """What follows the command's name."""
        return list(self.argv[1:])

    async def out(self, text: str | bytes) -> None:
        """Write to standard output."""
        await self.streams.write(_bytes(text), error=False)

    async def error(self, text: str | bytes) -> None:
        """Write to standard error."""
        await self.streams.write(_bytes(text), error=True)

    async def fail(self, text: str, code: int = 1) -> int:
        """Write a line to standard error and return `code`."""
        await self.error(text + "\n")
        return code

    async def read_blocks(self, amount: int) -> AsyncIterator[bytes]:
        """At most `amount` bytes of standard input as they come."""
        left = amount
        while left > 0:
            block = (await self.streams.read())[:left]
            if not block:
                return
            left -= len(block)
            yield block

    def with_argv(self, argv: Sequence[str]) -> Call:
        """The same caller, another command line (`cmd package` becomes `pm`)."""
        return Call(argv, self.streams, self.folder, self.log_tags, self.gone)


class AdbStreams:
    """Streams of a command that a host called without a shell in between."""

    def __init__(self, stream: Stream, *, packets: bool) -> None:
        self.descriptors: tuple[int, int, int] | None = None
        self._stream = stream
        self._packets = packets
        self._unpacker = shell_protocol.Unpacker()
        self._input: list[bytes] = []
        self._ended = False

    async def write(self, data: bytes, *, error: bool) -> None:
        """Write to the host."""
        kind = shell_protocol.STDERR if error else shell_protocol.STDOUT
        try:
            await self._stream.send(shell_protocol.pack(kind, data) if self._packets else data)
        except StreamClosed as problem:
            raise CallerGone from problem

    async def read(self) -> bytes:
        """What the host sends."""
        if not self._packets:
            return bytes(await self._stream.receive())
        while not self._input and not self._ended:
            data = await self._stream.receive()
            if not data:
                self._ended = True
            for kind, body in self._unpacker.feed(data):
                if kind == shell_protocol.STDIN and body:
                    self._input.append(body)
                elif kind == shell_protocol.CLOSE_STDIN:
                    self._ended = True
        return self._input.pop(0) if self._input else b""

    async def finish(self, code: int) -> None:
        """Tell the exit code where the protocol has a place for it."""
        if self._packets:
            with contextlib.suppress(StreamClosed):
                packet = shell_protocol.pack(shell_protocol.EXIT, bytes([code & 255]))
                await self._stream.send(packet)


class DescriptorStreams:
    """Streams of a command that a program of the phone called, as file descriptors.

    They are shared with that program, so they stay blocking and are used in threads.
    """

    def __init__(self, descriptors: tuple[int, int, int], executor: Executor) -> None:
        self.descriptors: tuple[int, int, int] | None = descriptors
        self._stdin, self._stdout, self._stderr = descriptors
        self._executor = executor

    async def write(self, data: bytes, *, error: bool) -> None:
        """Write to the caller's stdout or stderr."""
        target = self._stderr if error else self._stdout
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, _write_all, target, data)
        except OSError as problem:
            raise CallerGone from problem

    async def read(self) -> bytes:
        """Read from the caller's stdin."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, os.read, self._stdin, BLOCK)
        except OSError:
            return b""


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
