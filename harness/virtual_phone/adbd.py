"""adbd: takes hosts' connections and opens the services that they name."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from harness.virtual_phone import protocol
from harness.virtual_phone.auth import AuthMode, HostKeys
from harness.virtual_phone.calls import AdbStreams, Call
from harness.virtual_phone.forwarding import PhoneSockets, Reversals, pump
from harness.virtual_phone.sandbox import SHELL
from harness.virtual_phone.shell_service import ShellRequest, run_shell
from harness.virtual_phone.streams import Stream
from harness.virtual_phone.sync import SyncParts, SyncSession
from harness.virtual_phone.system import SHELL_ENVIRONMENT, System
from harness.virtual_phone.transport import Service, Transport

_NOT_ROOT = {
    "root": "adbd cannot run as root in production builds\n",
    "unroot": "adbd not running as root\n",
    "remount": 'Not running as root. Try "adb root" first.\n',
    "disable-verity": "verity cannot be disabled/enabled - USER build\n",
    "enable-verity": "verity cannot be disabled/enabled - USER build\n",
}


@dataclass
class PushFault:
    """Cut the connection when a push has brought this many more bytes."""

    remaining: int


class Adbd:
    """The daemon for one phone."""

    def __init__(self, system: System, executor: Executor) -> None:
        self.keys = HostKeys()
        self.silent = False
        self.push_fault: PushFault | None = None
        self._system = system
        self._executor = executor
        self._sockets = PhoneSockets(system.sandbox)
        self._transports: dict[Transport, Reversals] = {}
        self._server: asyncio.Server | None = None

    # the connection's side

    def banner(self) -> str:
        """The identity for CNXN."""
        return protocol.banner(self._system.properties)

    def connected(self, transport: Transport) -> None:
        """A host connected."""
        self._transports[transport] = Reversals(transport, self._sockets)

    def lost(self, transport: Transport) -> None:
        """A host's connection is gone."""
        reversals = self._transports.pop(transport, None)
        if reversals is not None:
            reversals.close()

    def service(self, name: str, transport: Transport) -> Service | None:
        """Who answers an OPEN of `name`, None if nobody does."""
        kind, _, rest = name.partition(":")
        head = kind.partition(",")[0]
        if head in ("shell", "exec"):
            return functools.partial(self._shell, ShellRequest.parse(name))
        if kind in ("abb", "abb_exec"):
            argv = ["cmd", *rest.split("\0")]
            return functools.partial(self._run, argv, "", packets=kind == "abb")
        if name == "sync:":
            return functools.partial(self._sync, transport)
        if kind == "reverse":
            reversals = self._transports[transport]
            return functools.partial(_reverse, reversals, rest)
        if kind == "reboot":
            return self._reboot
        if kind in _NOT_ROOT:
            return functools.partial(_say, _NOT_ROOT[kind])
        if kind == "tcp" or kind.startswith("local"):
            return functools.partial(self._forward, name)
        if name in ("track-jdwp", "track-app", "jdwp"):
            return _track
        return None

    # the phone's side

    async def listen(self, port: int, *, host: str = "127.0.0.1") -> None:
        """Take connections. Raises OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Transport(self), host, port)

    async def stop(self) -> None:
        """Close the port and cut every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.disconnect()

    def disconnect(self) -> None:
        """Cut every connection; hosts may connect again."""
        for transport in list(self._transports):
            transport.abort()

    def set_auth(self, mode: AuthMode) -> None:
        """Change how hosts are treated, from their next connection on."""
        self.keys = HostKeys(mode)

    # services

    async def _shell(self, request: ShellRequest, stream: Stream) -> None:
        direct = None if request.terminal else self._system.direct(request.command)
        if direct is not None:
            argv, tags = direct
            await self._run(argv, tags, stream, packets=request.packets)
            return
        argv = ["/system/bin/sh", *(["-c", request.command] if request.command else [])]
        command = self._system.sandbox.command(SHELL, argv)
        environment = {**SHELL_ENVIRONMENT, "TERM": request.terminal_name}
        await run_shell(request, stream, command, environment)

    async def _run(self, argv: list[str], tags: str, stream: Stream, *, packets: bool) -> None:
        streams = AdbStreams(stream, packets=packets)
        call = Call(argv, streams, log_tags=tags)
        stream.on_close.append(call.gone.set)
        await streams.finish(await self._system.run(call))

    async def _sync(self, transport: Transport, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        cut = functools.partial(loop.call_soon_threadsafe, transport.abort)
        parts = SyncParts(
            self._system.files, self._system.storage, functools.partial(self._pushed, cut)
        )
        session = SyncSession(parts, stream, loop)
        await loop.run_in_executor(self._executor, session.run)

    def _pushed(self, cut: Callable[[], object], amount: int) -> None:
        fault = self.push_fault
        if fault is None:
            return
        fault.remaining -= amount
        if fault.remaining <= 0:
            self.push_fault = None
            cut()

    async def _forward(self, name: str, stream: Stream) -> None:
        with contextlib.suppress(OSError, ValueError):
            await pump(stream, await self._sockets.dial(name))

    async def _reboot(self, stream: Stream) -> None:
        asyncio.get_running_loop().call_later(0.05, self._system.reboot)


async def _reverse(reversals: Reversals, command: str, stream: Stream) -> None:
    await reversals.answer(stream, command)


async def _say(text: str, stream: Stream) -> None:
    await stream.send(text.encode())


async def _track(stream: Stream) -> None:
    """No process of the phone takes a debugger: an empty list, which never changes."""
    await stream.send(b"0000")
    await stream.receive()


def free_port(preferred: int | None, *, first: int = 5600, last: int = 5999) -> int:
    """A port for the phone, outside the range (5555-5585) that adb scans for emulators."""
    start = first + os.getpid() % (last - first)
    candidates: list[int] = [*range(start, last), *range(first, start)]
    if preferred is not None:
        candidates.insert(0, preferred)
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise OSError(f"no free port between {first} and {last}")
