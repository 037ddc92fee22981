"""adb's shell and exec services: a program inside the phone wired to a stream."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import socket
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from harness.virtual_phone import shell_protocol
from harness.virtual_phone.shell_protocol import WindowSize
from harness.virtual_phone.streams import Stream, StreamClosed

READ_BYTES = 64 << 10
DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class ShellRequest:
    """What an OPEN of `shell...:` or `exec:` asks for."""

    command: str
    packets: bool
    """Shell protocol v2: stderr apart, exit code, window size."""
    terminal: bool
    terminal_name: str = "dumb"

    @classmethod
    def parse(cls, name: str) -> ShellRequest:
        """Read `exec:COMMAND` or `shell[,v2][,pty|raw][,TERM=x]:COMMAND`."""
        kind, _, command = name.partition(":")
        if kind == "exec":
            return cls(command, packets=False, terminal=False)
        words = kind.split(",")[1:]
        terminal = "pty" in words or (not command and "raw" not in words)
        names = [word.removeprefix("TERM=") for word in words if word.startswith("TERM=")]
        return cls(command, "v2" in words, terminal, names[0] if names else "dumb")


@dataclass
class _Wiring:
    """The host's ends of a program's standard streams."""

    child_stdin: int
    child_stdout: int
    child_stderr: int
    inward: Pipe
    outward: list[tuple[Pipe, int]]
    terminal: int = -1
    close_in_parent: list[Callable[[], None]] = field(default_factory=list)


class Pipe:
    """A non-blocking socket or terminal that the event loop reads and writes."""

    def __init__(self, end: socket.socket | int) -> None:
        self._end = end
        self._loop = asyncio.get_running_loop()
        if isinstance(end, int):
            os.set_blocking(end, False)
        else:
            end.setblocking(False)

    async def read(self) -> bytes:
        """The next bytes, b"" at the end (a terminal whose program has gone gives EIO)."""
        try:
            if isinstance(self._end, socket.socket):
                return await self._loop.sock_recv(self._end, READ_BYTES)
            while True:
                try:
                    return os.read(self._end, READ_BYTES)
                except BlockingIOError:
                    await self._ready(self._loop.add_reader, self._loop.remove_reader)
        except OSError:
            return b""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write everything; raises OSError when nobody reads any more."""
        if isinstance(self._end, socket.socket):
            await self._loop.sock_sendall(self._end, data)
            return
        rest = memoryview(data)
        while len(rest):
            try:
                rest = rest[os.write(self._end, rest) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    def end_input(self) -> None:
        """The program reads no more input."""
        if isinstance(self._end, socket.socket):
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Nobody listens to the program any more."""
        if isinstance(self._end, socket.socket):
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back."""
        if isinstance(self._end, socket.socket):
            self._end.close()
        else:
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            os.close(self._end)

    async def _ready(self, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
        assert isinstance(self._end, int)
        ready = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        add(self._end, wake)
        try:
            await ready
        finally:
            remove(self._end)


def _wire(request: ShellRequest) -> _Wiring:
    if request.terminal:
        ours, theirs = pty.openpty()
        end = Pipe(ours)
        return _Wiring(
            theirs,
            theirs,
            theirs,
            end,
            [(end, shell_protocol.STDOUT)],
            ours,
            [lambda: os.close(theirs)],
        )
    # Sockets, not pipes: one end serves both ways and its closing tells both sides.
    ours_socket, child = socket.socketpair()
    end = Pipe(ours_socket)
    outward = [(end, shell_protocol.STDOUT)]
    wiring = _Wiring(child.fileno(), child.fileno(), child.fileno(), end, outward)
    wiring.close_in_parent.append(child.close)
    if request.packets:
        errors, child_errors = socket.socketpair()
        outward.append((Pipe(errors), shell_protocol.STDERR))
        wiring.child_stderr = child_errors.fileno()
        wiring.close_in_parent.append(child_errors.close)
    return wiring


async def run_shell(
    request: ShellRequest, stream: Stream, argv: list[str], environment: dict[str, str]
) -> None:
    """Run `argv` (the host's command line) with its standard streams on `stream`."""
    wiring = _wire(request)
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=wiring.child_stdin,
            stdout=wiring.child_stdout,
            stderr=wiring.child_stderr,
            env=environment,
            start_new_session=True,
        )
    finally:
        for closing in wiring.close_in_parent:
            closing()

    def hang_up() -> None:
        if child.returncode is None and (request.packets or request.terminal):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGHUP)

    stream.on_close.append(hang_up)
    writer = asyncio.ensure_future(_host_to_program(request, stream, wiring))
    try:
        await asyncio.gather(*(_program_to_host(request, stream, *end) for end in wiring.outward))
        code = await child.wait()
        if request.packets:
            status = 128 - code if code < 0 else code
            await stream.send(shell_protocol.pack(shell_protocol.EXIT, bytes([status & 255])))
    except StreamClosed:
        # Input that came before the end (exec-in, install) still reaches the program.
        await asyncio.wait({writer}, timeout=DRAIN_SECONDS)
    finally:
        writer.cancel()
        for end, _kind in wiring.outward:
            end.close()


async def _program_to_host(request: ShellRequest, stream: Stream, end: Pipe, kind: int) -> None:
    while data := await end.read():
        await stream.send(shell_protocol.pack(kind, data) if request.packets else data)


async def _host_to_program(request: ShellRequest, stream: Stream, wiring: _Wiring) -> None:
    unpacker = shell_protocol.Unpacker()
    handle: Callable[[bytes], Awaitable[None]] = wiring.inward.write
    try:
        while data := await stream.receive():
            if not request.packets:
                await handle(bytes(data))
                continue
            for kind, body in unpacker.feed(data):
                if kind == shell_protocol.STDIN:
                    await handle(body)
                elif kind == shell_protocol.CLOSE_STDIN and not request.terminal:
                    wiring.inward.end_input()
                elif kind == shell_protocol.WINDOW_SIZE and wiring.terminal >= 0:
                    size = WindowSize.parse(body)
                    if size is not None:
                        fcntl.ioctl(wiring.terminal, termios.TIOCSWINSZ, size.pack())
    except OSError:
        return  # the program takes no more input; its end is seen by the readers
    # The host closed the stream: everything it sent has been handed over.
    wiring.inward.hang_up()
