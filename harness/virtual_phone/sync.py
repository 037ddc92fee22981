"""adb's sync service: stat, list, push and pull (AOSP `file_sync_service.cpp`).

A session runs in a thread of its own, because files block and pushes are long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.virtual_phone import sync_format
from harness.virtual_phone.filesystem import DeviceFiles, Storage
from harness.virtual_phone.protocol import MAX_PAYLOAD
from harness.virtual_phone.streams import Buffer, Stream, StreamClosed

READ_BYTES = (MAX_PAYLOAD // (sync_format.DATA_MAX + 8)) * sync_format.DATA_MAX


class SessionEnd(Exception):
    """The host closed the stream."""


class Refused(Exception):
    """A request that ends the session with a FAIL."""


@dataclass(frozen=True)
class SyncParts:
    """What a session works on. `pushed` is told of each piece that a push brings."""

    files: DeviceFiles
    storage: Storage
    pushed: Callable[[int], None]


class SyncSession:
    """One `sync:` stream."""

    def __init__(self, parts: SyncParts, stream: Stream, loop: asyncio.AbstractEventLoop) -> None:
        self._parts = parts
        self._stream = stream
        self._loop = loop
        self._arrived: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._current = memoryview(b"")
        self._in_use = 0
        stream.divert(self._arrived.put)

    def run(self) -> None:
        """Answer requests until QUIT, an error or the stream's end."""
        try:
            while self._answer():
                pass
        except (SessionEnd, StreamClosed):
            pass
        except Refused as refusal:
            self._try_write(sync_format.fail(str(refusal)))

    def _answer(self) -> bool:
        name, length = sync_format.request(self._read(8))
        if name == "QUIT":
            return False
        if length > sync_format.PATH_MAX:
            raise Refused("path too long")
        path = bytes(self._read(length)).decode("utf-8", "surrogateescape")
        match name:
            case "STAT":
                self._write(sync_format.stat_v1(self._stat(path, follow=False)))
            case "STA2" | "LST2":
                self._stat_v2(name, path)
            case "LIST":
                self._list(path, version=1)
            case "LIS2":
                self._list(path, version=2)
            case "SEND":
                try:
                    target, mode = sync_format.split_send_v1(path)
                except ValueError as problem:
                    raise Refused("missing mode") from problem
                self._push(target, mode, flags=0)
            case "SND2":
                _, mode, flags = sync_format.SEND_V2.unpack(self._read(12))
                self._push(path, mode, flags)
            case "RECV":
                self._pull(path, flags=0)
            case "RCV2":
                _, flags = sync_format.RECEIVE_V2.unpack(self._read(8))
                self._pull(path, flags)
            case _:
                raise Refused(f"unknown command {name}")
        return True

    # bytes in and out

    def _read(self, amount: int) -> bytes | memoryview:
        piece = self._some(amount)
        if len(piece) == amount:
            return piece
        whole = bytearray(piece)
        while len(whole) < amount:
            whole += self._some(amount - len(whole))
        return bytes(whole)

    def _some(self, most: int) -> memoryview:
        """At least one byte and at most `most`, without a copy."""
        while not len(self._current):
            if most == 0:
                return self._current
            if self._in_use:
                self._loop.call_soon_threadsafe(self._stream.consumed, self._in_use)
                self._in_use = 0
            arrived = self._arrived.get()
            if arrived is None:
                raise SessionEnd
            self._current = memoryview(arrived)
            self._in_use = len(self._current)
        piece, self._current = self._current[:most], self._current[most:]
        return piece

    def _write(self, data: bytes) -> None:
        asyncio.run_coroutine_threadsafe(self._stream.send(data), self._loop).result()

    def _try_write(self, data: bytes) -> None:
        with contextlib.suppress(StreamClosed):
            self._write(data)

    # stat and list

    def _stat(self, path: str, *, follow: bool) -> os.stat_result | None:
        try:
            return self._facts(path, follow=follow)
        except OSError:
            return None

    def _facts(self, path: str, *, follow: bool) -> os.stat_result:
        host = self._parts.files.readable(path, follow=follow)
        return Path(host).lstat()

    def _stat_v2(self, name: str, path: str) -> None:
        facts: os.stat_result | int
        try:
            facts = self._facts(path, follow=name == "STA2")
        except OSError as problem:
            facts = problem.errno or errno.ENOENT
        self._write(sync_format.stat_v2(name, facts))

    def _list(self, path: str, *, version: int) -> None:
        answer = bytearray()
        try:
            folder = self._parts.files.readable(path)
            names = [b".", b"..", *(entry.name for entry in os.scandir(os.fsencode(folder)))]
        except OSError:
            names = []
        for name in names:
            try:
                facts = os.lstat(os.path.join(os.fsencode(folder), name))  # noqa: PTH118
            except OSError:
                continue  # gone since it was listed
            entry = sync_format.dent_v1 if version == 1 else sync_format.dent_v2
            answer += entry(name, facts)
        self._write(bytes(answer) + sync_format.list_done(version=version))

    # push

    def _push(self, path: str, mode: int, flags: int) -> None:
        if flags & sync_format.FLAG_COMPRESSIONS:
            raise Refused("compression was not offered")
        if flags & sync_format.FLAG_DRY_RUN:
            receiver: _Receiver = _Receiver()
        elif stat.S_ISLNK(mode):
            receiver = _LinkReceiver(self._parts, path)
        else:
            receiver = _FileReceiver(self._parts, path, mode)
        problem = _attempt(receiver.open, "couldn't create file")
        if problem:
            # The host goes on sending; it reads the FAIL when it is done or looks for it.
            self._write(sync_format.fail(problem))
        try:
            modified = self._receive(receiver, problem)
            if modified is None:
                receiver.discard()
                return
            problem = _attempt(lambda: receiver.finish(modified), "couldn't finish file")
            self._write(sync_format.fail(problem) if problem else sync_format.okay())
        except BaseException:
            receiver.discard()
            raise

    def _receive(self, receiver: _Receiver, problem: str) -> int | None:
        """Take DATA until DONE; returns DONE's time, None if a FAIL was sent."""
        while True:
            name, length = sync_format.request(self._read(8))
            if name == "DONE":
                return None if problem else length
            if name != "DATA" or length > sync_format.DATA_MAX:
                raise Refused("invalid data message")
            while length:
                piece = self._some(length)
                length -= len(piece)
                self._parts.pushed(len(piece))
                if problem:
                    continue
                problem = _attempt(lambda: receiver.write(piece), "write failed")  # noqa: B023
                if problem:
                    self._write(sync_format.fail(problem))

    # pull

    def _pull(self, path: str, flags: int) -> None:
        if flags & sync_format.FLAG_COMPRESSIONS:
            raise Refused("compression was not offered")
        try:
            file = os.open(self._parts.files.readable(path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise Refused(f"open failed: {problem.strerror}") from problem
        try:
            pending: list[bytes | memoryview] = []
            while block := os.read(file, READ_BYTES):
                if pending:
                    self._write(b"".join(pending))
                pending = sync_format.data(block)
            # DATA and DONE of a small file in one message: two cost 45 ms with Nagle's algorithm.
            self._write(b"".join([*pending, sync_format.done()]))
        except OSError as problem:
            raise Refused(f"read failed: {problem.strerror}") from problem
        finally:
            os.close(file)


class _Receiver:
    """Takes a push and keeps nothing (a dry run)."""

    def open(self) -> None:
        """Prepare the target."""

    def write(self, piece: memoryview) -> None:
        """Take the next bytes."""

    def finish(self, modified: int) -> None:
        """Complete the target with its modification time (seconds)."""

    def discard(self) -> None:
        """Remove what is there."""


class _FileReceiver(_Receiver):
    def __init__(self, parts: SyncParts, path: str, mode: int) -> None:
        self._parts = parts
        self._path = path
        self._mode = mode
        self._file = -1
        self._host = ""

    def open(self) -> None:
        self._host = _clear_place(self._parts.files, self._path)
        mode = self._mode & 0o777
        mode |= (mode >> 3) & 0o070 | (mode >> 6) & 0o007
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL
        self._file = os.open(self._host, flags, mode)
        os.fchmod(self._file, mode)

    def write(self, piece: memoryview) -> None:
        if self._parts.storage.free() < len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = piece
        while len(rest):
            rest = rest[os.write(self._file, rest) :]
        self._parts.storage.wrote(len(piece))

    def finish(self, modified: int) -> None:
        os.close(self._file)
        self._file = -1
        os.utime(self._host, (modified, modified))

    def discard(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            Path(self._host).unlink(missing_ok=True)


class _LinkReceiver(_Receiver):
    def __init__(self, parts: SyncParts, path: str) -> None:
        self._parts = parts
        self._path = path
        self._target = bytearray()

    def open(self) -> None:
        self._parts.files.writable(self._path)

    def write(self, piece: memoryview) -> None:
        self._target += piece

    def finish(self, modified: int) -> None:
        host = _clear_place(self._parts.files, self._path)
        Path(host).symlink_to(os.fsdecode(bytes(self._target).rstrip(b"\0")))
        os.utime(host, (modified, modified), follow_symlinks=False)


def _clear_place(files: DeviceFiles, path: str) -> str:
    """Make parents, remove a file or link that is in the way; returns the host's path."""
    host = Path(files.writable(path))
    if host.is_dir() and not host.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    host.unlink(missing_ok=True)
    host.parent.mkdir(parents=True, exist_ok=True)
    return str(host)


def _attempt(action: Callable[[], None], failure: str) -> str:
    """ "" if `action` works, else a text for FAIL."""
    try:
        action()
    except OSError as problem:
        return f"{failure}: {problem.strerror}"
    return ""
