"""One adb stream: ordered bytes both ways with one unacknowledged write in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from harness.virtual_phone import protocol

RECEIVE_HIGH = 4 << 20
"""Unread bytes of one stream after which the host's writes are no longer acknowledged."""

Buffer = bytes | bytearray | memoryview


class StreamClosed(ConnectionError):
    """The host closed the stream or the connection is gone."""


class MessageSender(Protocol):
    """What a stream needs of the connection it lies on."""

    max_payload: int

    def send(self, command: int, first: int, second: int, payload: Buffer = b"") -> None:
        """Queue one message."""

    async def drain(self) -> None:
        """Wait until the socket takes more."""

    def forget(self, local: int) -> None:
        """The stream with this local id is closed."""


class Stream:
    """The device's end of a stream. All methods belong to the event loop's thread."""

    def __init__(self, connection: MessageSender, local: int, remote: int) -> None:
        self.connection = connection
        self.local = local
        self.remote = remote
        self.closed = False
        self.on_close: list[Callable[[], None]] = []
        self._received: deque[Buffer] = deque()
        self._received_bytes = 0
        self._unacknowledged = 0
        self._arrived = asyncio.Event()
        self._may_write = asyncio.Event()
        self._write_lock = asyncio.Lock()
        self._sink: Callable[[Buffer | None], None] | None = None
        if remote:
            self._may_write.set()

    def feed(self, data: Buffer) -> None:
        """A WRTE came from the host."""
        self._unacknowledged += 1
        self._received_bytes += len(data)
        if self._sink is not None:
            self._sink(data)
        else:
            self._received.append(data)
            self._arrived.set()
        if self._received_bytes < RECEIVE_HIGH:
            self._acknowledge()

    def divert(self, sink: Callable[[Buffer | None], None]) -> None:
        """Hand all received data to `sink` from now on (None: the stream ended).

        The taker reports what it has used with `consumed`.
        """
        self._sink = sink
        for data in self._received:
            sink(data)
        self._received.clear()
        if self.closed:
            sink(None)

    def consumed(self, amount: int) -> None:
        """`amount` received bytes were used; the host may send more."""
        self._received_bytes -= amount
        if self._unacknowledged and self._received_bytes < RECEIVE_HIGH // 2:
            self._acknowledge()

    async def receive(self) -> Buffer:
        """The next data from the host, b"" after the stream's end.

        Data that arrived before the end is still handed out.
        """
        while not self._received:
            if self.closed:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._received.popleft()
        self.consumed(len(data))
        return data

    async def send(self, data: Buffer) -> None:
        """Write all of `data`; raises `StreamClosed` when the host no longer listens."""
        async with self._write_lock:
            rest = memoryview(data)
            while len(rest):
                await self._may_write.wait()
                if self.closed:
                    raise StreamClosed(f"stream {self.local} is closed")
                self._may_write.clear()
                piece = rest[: self.connection.max_payload]
                self.connection.send(protocol.WRTE, self.local, self.remote, piece)
                rest = rest[len(piece) :]
                await self.connection.drain()

    async def flush(self) -> None:
        """Wait until the host has acknowledged everything."""
        await self._may_write.wait()

    def okay(self) -> None:
        """The host acknowledged a write (or accepted our OPEN)."""
        self._may_write.set()

    def close(self, *, notify: bool = True) -> None:
        """End the stream. With `notify`, tell the host."""
        if self.closed:
            return
        self.closed = True
        self.connection.forget(self.local)
        if notify:
            self.connection.send(protocol.CLSE, self.local, self.remote)
        self._may_write.set()
        self._arrived.set()
        if self._sink is not None:
            self._sink(None)
        for action in self.on_close:
            action()

    def _acknowledge(self) -> None:
        if not self.closed:
            for _ in range(self._unacknowledged):
                self.connection.send(protocol.OKAY, self.local, self.remote)
        self._unacknowledged = 0
