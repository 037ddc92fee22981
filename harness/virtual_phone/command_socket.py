"""Where programs of the phone reach its system: native/client.c sends calls here."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct

from harness.virtual_phone.calls import Call, DescriptorStreams
from harness.virtual_phone.system import System

PATH = "dev/socket/system"
_FIRST_READ = 64 << 10
_MAX_MESSAGE = 1 << 20


class CommandServer:
    """Accepts calls until it is closed."""

    def __init__(self, system: System, listener: socket.socket) -> None:
        self._system = system
        self._listener = listener
        self._calls: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer calls, each in a task of its own."""
        loop = asyncio.get_running_loop()
        while True:
            link, _address = await loop.sock_accept(self._listener)
            task = loop.create_task(self._answer(link))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _answer(self, link: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            link.setblocking(False)
            message = await _receive(link, descriptors)
            if message is None or len(descriptors) != 3:
                return
            folder, tags, *argv = message
            streams = DescriptorStreams(
                (descriptors[0], descriptors[1], descriptors[2]), self._system.executor
            )
            call = Call(argv, streams, folder, tags)
            watcher = asyncio.ensure_future(_watch(link, call.gone))
            try:
                code = await self._system.run(call)
            finally:
                watcher.cancel()
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(link, struct.pack("<i", code))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            link.close()


async def _receive(link: socket.socket, descriptors: list[int]) -> list[str] | None:
    """The strings of a call; its descriptors are added to `descriptors`."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(link, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(link)
    data, ancillary, _flags, _address = link.recvmsg(_FIRST_READ, socket.CMSG_SPACE(12))
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += array.array("i", body[: len(body) - len(body) % 4])
    if len(data) < 4:
        return None
    (length,) = struct.unpack_from("<I", data)
    while len(data) < 4 + length <= _MAX_MESSAGE:
        more = await loop.sock_recv(link, _FIRST_READ)
        if not more:
            return None
        data += more
    words = [word.decode("utf-8", "surrogateescape") for word in data[4:].split(b"\0")[:-1]]
    return words if len(words) >= 3 else None


async def _watch(link: socket.socket, gone: asyncio.Event) -> None:
    """The client sends nothing more; its end of the connection closes with it."""
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_recv(link, 1)
    gone.set()
