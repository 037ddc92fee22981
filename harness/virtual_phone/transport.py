"""One host's connection to the phone: framing, the handshake, and its streams."""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Protocol

from harness.virtual_phone import protocol
from harness.virtual_phone.auth import HostKeys
from harness.virtual_phone.protocol import Header, ProtocolError
from harness.virtual_phone.streams import Buffer, Stream, StreamClosed

SOCKET_BUFFER = 4 << 20
SMALL = 4096
OPEN_TIMEOUT_SECONDS = 5.0

Service = Callable[[Stream], Awaitable[None]]


class Adbd(Protocol):
    """What a connection needs of the daemon."""

    keys: HostKeys
    silent: bool
    """True while the phone plays "offline": it takes connections and answers nothing."""

    def banner(self) -> str:
        """The identity for CNXN."""

    def service(self, name: str, transport: Transport) -> Service | None:
        """Who answers an OPEN of `name`."""

    def connected(self, transport: Transport) -> None:
        """A host connected."""

    def lost(self, transport: Transport) -> None:
        """A host's connection is gone."""


class Transport(asyncio.BufferedProtocol):
    """Reads messages straight into their buffers and answers them on the event loop."""

    def __init__(self, adbd: Adbd) -> None:
        self.adbd = adbd
        self.streams: dict[int, Stream] = {}
        self.max_payload = protocol.MAX_PAYLOAD_BEFORE_CONNECT
        self._version = protocol.VERSION_MIN
        self._online = False
        self._token = b""
        self._next_id = 0
        self._socket: asyncio.Transport | None = None
        self._paused: asyncio.Future[None] | None = None
        self._opening: dict[int, asyncio.Future[bool]] = {}
        self._services: set[asyncio.Task[None]] = set()
        self._header = bytearray(protocol.HEADER.size)
        self._message: Header | None = None
        self._payload = bytearray()
        self._filled = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._socket = transport
        link: socket.socket = transport.get_extra_info("socket")
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        transport.set_write_buffer_limits(high=SOCKET_BUFFER)
        self.adbd.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._online = False
        self.adbd.lost(self)
        for stream in list(self.streams.values()):
            stream.close(notify=False)
        for answer in self._opening.values():
            if not answer.done():
                answer.set_result(False)
        self.resume_writing()

    def pause_writing(self) -> None:
        self._paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        target = self._header if self._message is None else self._payload
        return memoryview(target)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        try:
            if self._message is None:
                if self._filled < len(self._header):
                    return
                self._message = Header.unpack(self._header)
                self._filled = 0
                self._payload = bytearray(self._message.length)
            if self._filled == self._message.length:
                message, payload = self._message, self._payload
                self._message, self._payload, self._filled = None, bytearray(), 0
                self._check(message, payload)
                self._handle(message, payload)
        except ProtocolError as problem:
            print(f"adb: dropping the connection: {problem}", flush=True)
            self.abort()

    # what streams and services use

    def send(self, command: int, first: int, second: int, payload: Buffer = b"") -> None:
        """Queue one message."""
        if self._socket is None or self._socket.is_closing():
            return
        summed = self._version < protocol.VERSION_SKIP_CHECKSUM
        total = protocol.checksum(payload) if summed or command != protocol.WRTE else 0
        header = Header(command, first, second, len(payload), total).pack()
        if len(payload) < SMALL:
            self._socket.write(header + bytes(payload))
        else:
            self._socket.write(header)
            self._socket.write(payload)

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        if self._paused is not None:
            await self._paused

    def forget(self, local: int) -> None:
        """The stream with this local id is closed."""
        self.streams.pop(local, None)

    async def open(self, destination: str) -> Stream | None:
        """Open a stream to the host (for `reverse`); None if the host refuses."""
        stream = self._new_stream(remote=0)
        answer = asyncio.get_running_loop().create_future()
        self._opening[stream.local] = answer
        self.send(protocol.OPEN, stream.local, 0, destination.encode() + b"\0")
        try:
            accepted = await asyncio.wait_for(answer, OPEN_TIMEOUT_SECONDS)
        except TimeoutError:
            accepted = False
        finally:
            self._opening.pop(stream.local, None)
        if not accepted:
            stream.close(notify=False)
            return None
        return stream

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._socket is not None:
            self._socket.abort()

    # messages

    def _new_stream(self, remote: int) -> Stream:
        self._next_id += 1
        stream = Stream(self, self._next_id, remote)
        self.streams[stream.local] = stream
        return stream

    def _check(self, message: Header, payload: bytearray) -> None:
        # CNXN itself tells which version is spoken, so only later messages can be held to it.
        summed = self._version < protocol.VERSION_SKIP_CHECKSUM
        known = self._online and message.command != protocol.CNXN
        if summed and known and protocol.checksum(payload) != message.checksum:
            raise ProtocolError("bad checksum")

    def _handle(self, message: Header, payload: bytearray) -> None:
        if self.adbd.silent:
            return
        command, first, second = message.command, message.first, message.second
        if command == protocol.CNXN:
            self._greeted(first, second)
        elif command == protocol.AUTH:
            self._authenticate(first, bytes(payload))
        elif not self._online:
            return
        elif command == protocol.WRTE:
            stream = self.streams.get(second)
            if stream is not None and stream.remote == first:
                stream.feed(payload)
        elif command == protocol.OKAY:
            self._okay(remote=first, local=second)
        elif command == protocol.CLSE:
            self._closed(local=second)
        elif command == protocol.OPEN:
            self._open_service(first, payload)
        else:
            raise ProtocolError(f"unknown command {command:#x}")

    def _greeted(self, version: int, max_payload: int) -> None:
        self._version = min(version, protocol.VERSION_SKIP_CHECKSUM)
        self.max_payload = min(max_payload, protocol.MAX_PAYLOAD)
        if self.adbd.keys.required:
            self._ask_for_key()
        else:
            self._go_online()

    def _authenticate(self, kind: int, payload: bytes) -> None:
        keys = self.adbd.keys
        if kind == protocol.AUTH_SIGNATURE:
            if keys.verify(self._token, payload):
                self._go_online()
            else:
                self._ask_for_key()
        elif kind == protocol.AUTH_PUBLIC_KEY and keys.offer(payload.rstrip(b"\0")):
            self._go_online()
        # An offered key that is not accepted leaves the phone "unauthorized".

    def _ask_for_key(self) -> None:
        self._token = os.urandom(20)
        self.send(protocol.AUTH, protocol.AUTH_TOKEN, 0, self._token)

    def _go_online(self) -> None:
        self._online = True
        greeting = self.adbd.banner().encode()
        self.send(protocol.CNXN, protocol.VERSION_SKIP_CHECKSUM, protocol.MAX_PAYLOAD, greeting)

    def _okay(self, *, remote: int, local: int) -> None:
        stream = self.streams.get(local)
        if stream is None:
            self.send(protocol.CLSE, local, remote)
            return
        opening = self._opening.get(local)
        if opening is not None and not opening.done():
            stream.remote = remote
            opening.set_result(True)
        stream.okay()

    def _closed(self, *, local: int) -> None:
        opening = self._opening.get(local)
        if opening is not None and not opening.done():
            opening.set_result(False)
            return
        stream = self.streams.get(local)
        if stream is not None:
            # protocol.txt asks for no answer, but every real adbd gives one and clients wait.
            stream.close(notify=True)

    def _open_service(self, remote: int, payload: bytearray) -> None:
        if not remote:
            raise ProtocolError("OPEN without an id")
        name = bytes(payload).rstrip(b"\0").decode("utf-8", "surrogateescape")
        service = self.adbd.service(name, self)
        if service is None:
            self.send(protocol.CLSE, 0, remote)
            return
        stream = self._new_stream(remote)
        self.send(protocol.OKAY, stream.local, remote)
        task = asyncio.get_running_loop().create_task(self._serve(service, stream, name))
        self._services.add(task)
        task.add_done_callback(self._services.discard)

    async def _serve(self, service: Service, stream: Stream, name: str) -> None:
        try:
            await service(stream)
        except StreamClosed:
            pass
        except Exception:
            print(f"adb: the service {name!r} failed", flush=True)
            traceback.print_exc()
        finally:
            if not stream.closed:
                # A CLSE that overtakes the acknowledgement of the last WRTE loses data.
                await stream.flush()
                stream.close()
