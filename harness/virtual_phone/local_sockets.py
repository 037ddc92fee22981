"""Abstract Unix sockets for apps, whose Java knows only sockets that have a path.

An app connects to `dev/socket/local` and says what it wants in a line: `listen NAME`,
`connect NAME`, or `take TICKET`. The answer is the line `ok`, or the reason why not. After
`connect` and `take` the connection is that of the socket. After `listen` each connection that comes
is told in a line, `TICKET PID UID`, and waits for another connection to take it. The listener
ends with the app's connection. The Java side is `framework/android/net/SystemSocket.java`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from harness.virtual_phone.activities import peer, phone_pid
from harness.virtual_phone.forwarding import READ_BYTES, PhoneSockets
from harness.virtual_phone.sandbox import SHELL_UID

PATH = "dev/socket/local"

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class _Listener:
    """What an app listens on; `waiting` holds connections that it has not taken yet."""

    app: asyncio.StreamWriter
    waiting: dict[str, Ends] = field(default_factory=dict)

    def arrived(self, ends: Ends, pid: int, uid: int) -> None:
        ticket = secrets.token_hex(16)
        self.waiting[ticket] = ends
        self.app.write(f"{ticket} {pid} {uid}\n".encode())


class LocalSockets:
    """Serves apps until the phone ends."""

    def __init__(self, sockets: PhoneSockets) -> None:
        self._sockets = sockets
        self._listeners: dict[str, _Listener] = {}

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Start listening for apps."""
        return await asyncio.start_unix_server(self._answer, sock=listener)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            verb, _, name = (await reader.readline()).decode().rstrip("\n").partition(" ")
            if verb == "listen":
                await self._listen(name, reader, writer)
            elif verb == "take":
                await self._take(name, (reader, writer))
            elif verb == "connect":
                await self._connect(name, (reader, writer))
            else:
                writer.write(b"not understood\n")
        except OSError as problem:
            writer.write(f"{problem.strerror or problem}\n".encode())
        finally:
            writer.close()

    async def _listen(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link = await self._sockets.listen(f"localabstract:{name}")
        listener = self._listeners[name] = _Listener(writer)
        writer.write(b"ok\n")
        accepting = asyncio.ensure_future(_accept(link, listener))
        try:
            await reader.read()  # an app that listens says nothing more
        finally:
            accepting.cancel()
            link.close()
            del self._listeners[name]
            for _, waiting in listener.waiting.values():
                waiting.close()

    async def _take(self, ticket: str, app: Ends) -> None:
        for listener in self._listeners.values():
            if ticket in listener.waiting:
                app[1].write(b"ok\n")
                await join(listener.waiting.pop(ticket), app)
                return
        app[1].write(b"no such connection\n")

    async def _connect(self, name: str, app: Ends) -> None:
        listener = self._listeners.get(name)
        if listener is None:
            link = await self._sockets.dial(f"localabstract:{name}")
            app[1].write(b"ok\n")
            await join(await asyncio.open_connection(sock=link), app)
            return
        # Between two apps, so that the listener is told who came, and not that the system did.
        ours, theirs = socket.socketpair()
        app[1].write(b"ok\n")
        host_pid, _uid = peer(app[1].get_extra_info("socket"))
        listener.arrived(
            await asyncio.open_connection(sock=theirs), phone_pid(host_pid), phone_uid(host_pid)
        )
        await join(await asyncio.open_connection(sock=ours), app)


async def _accept(link: socket.socket, listener: _Listener) -> None:
    loop = asyncio.get_running_loop()
    while True:
        connection, _address = await loop.sock_accept(link)
        host_pid, _uid = peer(connection)
        # This process connects for adb alone, whose place on a phone is the shell's.
        adb = host_pid == os.getpid()
        uid = SHELL_UID if adb else phone_uid(host_pid)
        ends = await asyncio.open_connection(sock=connection)
        listener.arrived(ends, phone_pid(host_pid), uid)


async def join(one: Ends, other: Ends) -> None:
    """Carry bytes both ways until both sides have said their last; closes both."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(READ_BYTES):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    try:
        await asyncio.gather(carry(one[0], other[1]), carry(other[0], one[1]))
    finally:
        one[1].close()
        other[1].close()


def phone_uid(host_pid: int) -> int:
    """The Android user of a process: the one user that its namespace has."""
    try:
        return int(Path(f"/proc/{host_pid}/uid_map").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return -1
