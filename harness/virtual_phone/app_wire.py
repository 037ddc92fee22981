"""What an app's process and the activity manager say to each other over a Unix socket.

Big-endian, as Java's DataOutputStream writes: a frame is u32 length, u8 kind, body. A text is u32
length and UTF-8; a bundle is u32 count and that many pairs of texts. The Java side is
`framework/android/app/SystemLink.java`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

MAX_FRAME = 16 << 20


class FromApp(IntEnum):
    """Kinds of frames that the app's process sends."""

    HELLO = 1
    STATUS = 2
    FINISH = 3
    EXCEPTION = 4


class ToApp(IntEnum):
    """Kinds of frames that it gets."""

    BIND = 1
    LAUNCH_ACTIVITY = 2


class WireError(Exception):
    """Bytes that are no frame."""


def frame(kind: int, body: bytes) -> bytes:
    """A whole frame."""
    return struct.pack(">IB", len(body) + 1, kind) + body


def text(value: str) -> bytes:
    """A text."""
    data = value.encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(data)) + data


def bundle(values: Mapping[str, str]) -> bytes:
    """A bundle of texts."""
    return struct.pack(">I", len(values)) + b"".join(
        text(name) + text(value) for name, value in values.items()
    )


class Reader:
    """Takes values from a frame's body in order; raises `WireError` where it ends too early."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def integer(self) -> int:
        """A signed 32-bit number."""
        value: int = struct.unpack(">i", self._take(4))[0]
        return value

    def text(self) -> str:
        """A text."""
        return self._take(self._count()).decode("utf-8", "replace")

    def bundle(self) -> dict[str, str]:
        """A bundle."""
        return {self.text(): self.text() for _ in range(self._count())}

    def _count(self) -> int:
        value = self.integer()
        if value < 0 or value > len(self._body):
            raise WireError(f"a length of {value} in a frame of {len(self._body)} bytes")
        return value

    def _take(self, amount: int) -> bytes:
        piece = self._body[self._at : self._at + amount]
        if len(piece) != amount:
            raise WireError("the frame ends too early")
        self._at += amount
        return piece
