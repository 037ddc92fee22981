"""The records of adb's sync service, v1 and v2 (AOSP `file_sync_protocol.h`)."""

from __future__ import annotations

import os
import struct

DATA_MAX = 64 << 10
PATH_MAX = 1024

REQUEST = struct.Struct("<4sI")
SEND_V2 = struct.Struct("<4sII")
RECEIVE_V2 = struct.Struct("<4sI")
STAT_V1 = struct.Struct("<4s3I")
STAT_V2 = struct.Struct("<4sI2Q4IQ3q")
DENT_V1 = struct.Struct("<4s4I")
DENT_V2 = struct.Struct("<4sI2Q4IQ3qI")

FLAG_COMPRESSIONS = 0b111
FLAG_DRY_RUN = 0x80000000

_U32 = 0xFFFFFFFF


def request(data: bytes | bytearray | memoryview) -> tuple[str, int]:
    """The id and the length (or argument) of a request's 8 bytes."""
    name, length = REQUEST.unpack(data)
    return name.decode("latin-1"), length


def fail(message: str) -> bytes:
    """A FAIL record."""
    text = message.encode("utf-8", "replace")
    return REQUEST.pack(b"FAIL", len(text)) + text


def okay() -> bytes:
    """The OKAY that ends a push."""
    return REQUEST.pack(b"OKAY", 0)


def done() -> bytes:
    """The DONE that ends a pull."""
    return REQUEST.pack(b"DONE", 0)


def data(block: bytes | memoryview) -> list[bytes | memoryview]:
    """DATA records for `block`, at most 64 KiB each, as pieces to join."""
    view = memoryview(block)
    pieces: list[bytes | memoryview] = []
    for start in range(0, len(view), DATA_MAX):
        piece = view[start : start + DATA_MAX]
        pieces += [REQUEST.pack(b"DATA", len(piece)), piece]
    return pieces


def stat_v1(facts: os.stat_result | None) -> bytes:
    """The answer to STAT: mode, size and time in 32 bits, zeros for a missing file."""
    if facts is None:
        return STAT_V1.pack(b"STAT", 0, 0, 0)
    return STAT_V1.pack(b"STAT", facts.st_mode, facts.st_size & _U32, int(facts.st_mtime) & _U32)


def stat_v2(name: str, facts: os.stat_result | int) -> bytes:
    """The answer to STA2 or LST2; `facts` is an errno where there are none."""
    return STAT_V2.pack(name.encode(), *_fields(facts))


def dent_v1(name: bytes, facts: os.stat_result) -> bytes:
    """An entry of LIST."""
    size, when = facts.st_size & _U32, int(facts.st_mtime) & _U32
    return DENT_V1.pack(b"DENT", facts.st_mode, size, when, len(name)) + name


def dent_v2(name: bytes, facts: os.stat_result | int) -> bytes:
    """An entry of LIS2."""
    return DENT_V2.pack(b"DNT2", *_fields(facts), len(name)) + name


def list_done(*, version: int) -> bytes:
    """The record that ends a list: DONE and zeros."""
    record = DENT_V1 if version == 1 else DENT_V2
    return b"DONE" + bytes(record.size - 4)


def split_send_v1(spec: str) -> tuple[str, int]:
    """Path and mode of SEND's "PATH,MODE" (decimal); raises ValueError."""
    path, comma, mode = spec.rpartition(",")
    if not comma or not path:
        raise ValueError(f"no mode in {spec!r}")
    return path, int(mode, 0)


def _fields(facts: os.stat_result | int) -> tuple[int, ...]:
    if isinstance(facts, int):
        return (facts, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    return (
        0,
        facts.st_dev,
        facts.st_ino,
        facts.st_mode,
        facts.st_nlink,
        facts.st_uid,
        facts.st_gid,
        facts.st_size,
        int(facts.st_atime),
        int(facts.st_mtime),
        int(facts.st_ctime),
    )
