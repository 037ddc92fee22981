"""Streams to sockets of the phone (`adb forward`), and listeners on it (`adb reverse`)."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

from harness.virtual_phone.sandbox import Sandbox
from harness.virtual_phone.streams import Stream, StreamClosed
from harness.virtual_phone.transport import Transport

READ_BYTES = 256 << 10


def address_of(spec: str) -> tuple[int, str | tuple[str, int]]:
    """Socket family and address of `tcp:PORT`, `localabstract:NAME` and their kin.

    Raises ValueError for what a phone does not know.
    """
    kind, _, value = spec.partition(":")
    match kind:
        case "tcp" if value.isdecimal() and int(value) < 65536:
            return socket.AF_INET, ("127.0.0.1", int(value))
        case "localabstract" if value:
            return socket.AF_UNIX, "\0" + value
        case "local" | "localfilesystem" if value:
            return socket.AF_UNIX, value
        case "localreserved" if value:
            return socket.AF_UNIX, f"/dev/socket/{value}"
    raise ValueError(f"unknown socket specification '{spec}'")


class PhoneSockets:
    """Makes connections and listeners inside the phone's network."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def dial(self, spec: str) -> socket.socket:
        """A connected socket; raises OSError or ValueError."""
        family, address = address_of(spec)
        link = await self._sandbox.socket(family, socket.SOCK_STREAM)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(link, self._seen_from_outside(address))
        except BaseException:
            link.close()
            raise
        return link

    async def listen(self, spec: str) -> socket.socket:
        """A listening socket; raises OSError or ValueError."""
        family, address = address_of(spec)
        link = await self._sandbox.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_INET:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            link.bind(self._seen_from_outside(address))
            link.listen(16)
        except BaseException:
            link.close()
            raise
        return link

    def _seen_from_outside(self, address: str | tuple[str, int]) -> str | tuple[str, int]:
        # A socket's network is the phone's, but paths are looked up where this process is.
        if isinstance(address, str) and address.startswith("/"):
            return f"{self._sandbox.view}{address}"
        return address


async def pump(stream: Stream, link: socket.socket) -> None:
    """Carry bytes both ways until either side ends; closes the socket."""
    reader, writer = await asyncio.open_connection(sock=link)

    async def inward() -> None:
        while data := await stream.receive():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    task = asyncio.ensure_future(inward())
    try:
        while data := await reader.read(READ_BYTES):
            await stream.send(data)
    except (ConnectionError, StreamClosed):
        pass
    finally:
        task.cancel()
        writer.close()


@dataclass
class _Listener:
    remote: str
    accepting: asyncio.Task[None]
    connections: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass
class Reversals:
    """The `adb reverse` listeners of one connection; they end with it."""

    transport: Transport
    sockets: PhoneSockets
    _listeners: dict[str, _Listener] = field(default_factory=dict)

    async def answer(self, stream: Stream, command: str) -> None:
        """Carry out `forward:...`, `killforward:...`, `killforward-all` or `list-forward`."""
        await stream.send(await self._answer(command))

    def close(self) -> None:
        """The connection is gone."""
        for listener in self._listeners.values():
            listener.accepting.cancel()
        self._listeners.clear()

    async def _answer(self, command: str) -> bytes:
        if command == "list-forward":
            lines = [f"(reverse) {name} {each.remote}\n" for name, each in self._listeners.items()]
            return _counted("".join(lines))
        if command == "killforward-all":
            self.close()
            return b"OKAY"
        kind, _, spec = command.partition(":")
        if kind == "killforward":
            listener = self._listeners.pop(spec, None)
            if listener is None:
                return b"FAIL" + _counted(f"listener '{spec}' not found")
            listener.accepting.cancel()
            return b"OKAY"
        if kind == "forward":
            return await self._add(spec)
        return b"FAIL" + _counted("not a reverse forwarding command")

    async def _add(self, spec: str) -> bytes:
        keep = spec.startswith("norebind:")
        local, semicolon, remote = spec.removeprefix("norebind:").partition(";")
        if not semicolon:
            return b"FAIL" + _counted("bad forward: " + spec)
        existing = self._listeners.get(local)
        if existing is not None:
            if keep:
                return b"FAIL" + _counted("cannot rebind existing socket")
            existing.remote = remote
            return b"OKAY"
        try:
            link = await self.sockets.listen(local)
        except ValueError as problem:
            return b"FAIL" + _counted(str(problem))
        except OSError as problem:
            return b"FAIL" + _counted(f"cannot bind listener: {problem.strerror}")
        chosen = b""
        if local == "tcp:0":
            port = link.getsockname()[1]
            local, chosen = f"tcp:{port}", _counted(str(port))
        accepting = asyncio.get_running_loop().create_task(self._accept(local, link))
        self._listeners[local] = _Listener(remote, accepting)
        return b"OKAY" + chosen

    async def _accept(self, local: str, link: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with link:
            while True:
                each, _address = await loop.sock_accept(link)
                each.setblocking(False)
                connections = self._listeners[local].connections
                task = loop.create_task(self._connected(local, each))
                connections.add(task)
                task.add_done_callback(connections.discard)

    async def _connected(self, local: str, link: socket.socket) -> None:
        listener = self._listeners.get(local)
        stream = await self.transport.open(listener.remote) if listener else None
        if stream is None:
            link.close()
            return
        await pump(stream, link)
        stream.close()


def _counted(text: str) -> bytes:
    data = text.encode()
    return b"%04x" % len(data) + data
