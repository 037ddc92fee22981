"""Conversations with the adb server in its own socket protocol.

Written here rather than taken from adbutils, whose reads and writes are unchecked and have no
deadline. The formats are those of AOSP's packages/modules/adb (OVERVIEW.TXT and SERVICES.TXT).
"""

from __future__ import annotations

import contextlib
import socket

RECEIVE = 1 << 16


class Refused(Exception):
    """The adb server answered FAIL; the text is its reason."""


class Broken(Exception):
    """The connection ended or could not be made."""


def connect(port: int, *, timeout: float) -> socket.socket:
    """A connection to the server. Raises `Broken` when none listens."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    except OSError as problem:
        raise Broken(f"no adb server answers on port {port}") from problem
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(connection: socket.socket, service: str) -> None:
    """Ask for a service. Raises `Refused` with the server's reason, or `Broken`."""
    name = service.encode()
    send(connection, b"%04x" % len(name) + name)
    status = receive_exactly(connection, 4)
    if status == b"FAIL":
        raise Refused(_receive_string(connection))
    if status != b"OKAY":
        raise Broken(f"the adb server answered {status!r}")


def query(port: int, service: str, *, timeout: float = 10.0) -> str:
    """The text that a host service answers with."""
    with contextlib.closing(connect(port, timeout=timeout)) as connection:
        request(connection, service)
        return _receive_string(connection)


def command(port: int, service: str, *, replies: int, timeout: float = 10.0) -> str:
    """Run a host service that acknowledges `replies` times, and return what follows, if anything.

    `forward` acknowledges twice: that it understood, and that it did it.
    """
    with contextlib.closing(connect(port, timeout=timeout)) as connection:
        request(connection, service)
        for _ in range(replies - 1):
            status = receive_exactly(connection, 4)
            if status == b"FAIL":
                raise Refused(_receive_string(connection))
        try:
            return _receive_string(connection)
        except Broken:
            return ""


def open_service(port: int, serial: str, service: str, *, timeout: float) -> socket.socket:
    """A connection to a service of one device, such as "sync:" or "shell,v2,raw:ls"."""
    connection = connect(port, timeout=timeout)
    try:
        request(connection, f"host:transport:{serial}")
        request(connection, service)
    except BaseException:
        connection.close()
        raise
    return connection


def send(connection: socket.socket, data: bytes | memoryview) -> None:
    """Send everything. Raises `Broken`; `TimeoutError` when the peer takes nothing."""
    try:
        connection.sendall(data)
    except TimeoutError:
        raise
    except OSError as problem:
        raise Broken(str(problem)) from problem


def receive(connection: socket.socket) -> bytes:
    """Some bytes; empty at the end. Raises `Broken`, or `TimeoutError`."""
    try:
        return connection.recv(RECEIVE)
    except TimeoutError:
        raise
    except OSError as problem:
        raise Broken(str(problem)) from problem


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """`count` bytes. Raises `Broken` when the connection ends before."""
    parts = bytearray()
    while len(parts) < count:
        try:
            part = connection.recv(min(RECEIVE, count - len(parts)))
        except TimeoutError:
            raise
        except OSError as problem:
            raise Broken(str(problem)) from problem
        if not part:
            raise Broken("the connection ended")
        parts += part
    return bytes(parts)


def _receive_string(connection: socket.socket) -> str:
    length = receive_exactly(connection, 4)
    try:
        count = int(length, 16)
    except ValueError as problem:
        raise Broken(f"the adb server sent {length!r} as a length") from problem
    return receive_exactly(connection, count).decode("utf-8", "replace")
