"""The messages of the adb wire protocol (AOSP packages/modules/adb, `protocol.txt`)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def _word(name: str) -> int:
    return int.from_bytes(name.encode("ascii"), "little")


CNXN = _word("CNXN")
AUTH = _word("AUTH")
OPEN = _word("OPEN")
OKAY = _word("OKAY")
CLSE = _word("CLSE")
WRTE = _word("WRTE")

AUTH_TOKEN = 1
AUTH_SIGNATURE = 2
AUTH_PUBLIC_KEY = 3

VERSION_MIN = 0x01000000
VERSION_SKIP_CHECKSUM = 0x01000001

MAX_PAYLOAD = 1 << 20
"""Largest payload of a modern adbd; smaller ones cost up to twenty times the push speed."""
MAX_PAYLOAD_BEFORE_CONNECT = 4096

HEADER = struct.Struct("<6I")

FEATURES = (
    "shell_v2",
    "cmd",
    "stat_v2",
    "ls_v2",
    "fixed_push_mkdir",
    "fixed_push_symlink_timestamp",
    "apex",
    "abb",
    "abb_exec",
    "remount_shell",
    "track_app",
    "sendrecv_v2",
    "sendrecv_v2_dry_run_send",
)
"""What the phone offers. No compression: on loopback it costs time and brings none."""


class ProtocolError(Exception):
    """The host sent something that is no adb message."""


@dataclass(frozen=True)
class Header:
    """The 24 bytes before each payload; `first` and `second` are arg0 and arg1 of protocol.txt."""

    command: int
    first: int
    second: int
    length: int
    checksum: int

    def pack(self) -> bytes:
        """The header's bytes on the wire."""
        return HEADER.pack(
            self.command,
            self.first,
            self.second,
            self.length,
            self.checksum,
            self.command ^ 0xFFFFFFFF,
        )

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Header:
        """Read 24 bytes; raises `ProtocolError` on a wrong magic or an overlong payload."""
        command, first, second, length, checksum, magic = HEADER.unpack(data)
        if magic != command ^ 0xFFFFFFFF:
            raise ProtocolError(f"bad magic {magic:#x} for command {command:#x}")
        if length > MAX_PAYLOAD:
            raise ProtocolError(f"payload of {length} bytes is longer than {MAX_PAYLOAD}")
        return cls(command, first, second, length, checksum)


def checksum(payload: bytes | bytearray | memoryview) -> int:
    """The sum of the payload's bytes (protocol version 0x01000000 calls it a CRC)."""
    return sum(payload) & 0xFFFFFFFF


def banner(properties: Mapping[str, str], features: Sequence[str] = FEATURES) -> str:
    """The system identity that a device sends in its CNXN."""
    names = ("ro.product.name", "ro.product.model", "ro.product.device")
    facts = "".join(f"{name}={properties.get(name, '')};" for name in names)
    return f"device::{facts}features={','.join(features)}"
