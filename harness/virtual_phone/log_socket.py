"""Where apps write their log: Android's logdw records, on a stream because Java has no datagrams.

A record is u16 length (big-endian, as Java writes), then what liblog sends: u8 buffer, u16 thread,
u32 seconds, u32 nanoseconds (little-endian), u8 priority, tag, 0, message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from harness.virtual_phone.activities import ActivityManager, peer, phone_pid
from harness.virtual_phone.app_process import AppProcess
from harness.virtual_phone.logd import Buffer, Logd
from harness.virtual_phone.sandbox import SHELL_UID

PATH = "dev/socket/logdw"
_HEADER = struct.Struct("<BHIIB")


def parse(record: bytes) -> tuple[Buffer, int, int, int, bytes, bytes] | None:
    """Buffer, thread, time in ns, priority, tag and message of a record, None if it is none."""
    if len(record) < _HEADER.size:
        return None
    number, thread, seconds, nanoseconds, priority = _HEADER.unpack_from(record)
    tag, zero, message = record[_HEADER.size :].partition(b"\0")
    if not zero or number not in Buffer.__members__.values():
        return None
    time_ns = seconds * 10**9 + nanoseconds
    return Buffer(number), thread, time_ns, priority, tag, message.rstrip(b"\0")


class LogServer:
    """Takes records of apps into the log."""

    def __init__(self, logd: Callable[[], Logd], activities: ActivityManager) -> None:
        self._logd = logd
        self._activities = activities

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Start listening."""
        return await asyncio.start_unix_server(self._take, sock=listener)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host_pid, _uid = peer(writer.get_extra_info("socket"))
        pid = phone_pid(host_pid)
        process: AppProcess | None = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                record = await reader.readexactly(length)
                # What is read after the app's end is still the app's.
                process = process or self._activities.by_host_pid(host_pid)
                self._write(process, pid, record)
        writer.close()

    def _write(self, process: AppProcess | None, pid: int, record: bytes) -> None:
        parsed = parse(record)
        if parsed is None:
            return
        buffer, thread, time_ns, priority, tag, message = parsed
        if process is not None:
            self._activities.logged(process)
        if self._logd().loss.swallows():
            return
        self._logd().write(
            buffer,
            priority,
            tag,
            message,
            pid=pid,
            tid=thread,
            uid=process.package.uid if process else SHELL_UID,
            time_ns=time_ns,
        )
