"""The log daemon: a ring of bounded size for each buffer, with Android's limits.

An entry holds at most 4068 bytes (priority, tag and message with their zeros); what is longer is
cut. A full ring forgets its oldest entries. Sizes follow AOSP's liblog and logd.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

MAX_PAYLOAD = 4068
DEFAULT_RING = 256 << 10
SMALL_RING = 64 << 10
"""Ring size of phones with little memory."""
MIN_RING = 64 << 10
MAX_RING = 256 << 20
_OVERHEAD = 20 + 3


class Buffer(IntEnum):
    """log_id_t."""

    MAIN = 0
    RADIO = 1
    EVENTS = 2
    SYSTEM = 3
    CRASH = 4
    STATS = 5
    SECURITY = 6
    KERNEL = 7


class Priority(IntEnum):
    """android_LogPriority; `letter` is what logcat prints."""

    VERBOSE = 2
    DEBUG = 3
    INFO = 4
    WARN = 5
    ERROR = 6
    FATAL = 7
    SILENT = 8

    @property
    def letter(self) -> str:
        """V, D, I, W, E, F or S."""
        return self.name[0]

    @classmethod
    def from_letter(cls, letter: str) -> Priority | None:
        """The priority of a letter in either case, None if there is none."""
        return _LETTERS.get(letter.upper())


_LETTERS = {priority.letter: priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry. `time_ns` is wall-clock time."""

    buffer: Buffer
    priority: int
    tag: bytes
    message: bytes
    pid: int
    tid: int
    uid: int
    time_ns: int
    sequence: int

    @property
    def size(self) -> int:
        """Bytes that the entry takes in its ring."""
        return _OVERHEAD + len(self.tag) + len(self.message)


@dataclass
class LogLoss:
    """A fault: entries of apps that never reach the log. `drop` counts down; `every` repeats."""

    drop: int = 0
    every: int = 0
    _seen: int = 0

    def swallows(self) -> bool:
        """Is the next entry lost?"""
        if self.drop > 0:
            self.drop -= 1
            return True
        self._seen += 1
        return self.every > 0 and self._seen % self.every == 0


Reader = Callable[[Entry | None], None]


class Logd:
    """All rings of a phone. Methods belong to the event loop's thread."""

    def __init__(self, ring_bytes: int = DEFAULT_RING) -> None:
        self.limits = dict.fromkeys(Buffer, ring_bytes)
        self.used = dict.fromkeys(Buffer, 0)
        self.pruned = dict.fromkeys(Buffer, 0)
        self.loss = LogLoss()
        self._rings: dict[Buffer, deque[Entry]] = {buffer: deque() for buffer in Buffer}
        self._readers: set[Reader] = set()
        self._sequence = 0

    def write(
        self,
        buffer: Buffer,
        priority: int,
        tag: bytes,
        message: bytes,
        *,
        pid: int,
        tid: int,
        uid: int,
        time_ns: int | None = None,
    ) -> None:
        """Add an entry, cut to the limit, and hand it to the readers."""
        tag = tag[: MAX_PAYLOAD - 3]
        self._sequence += 1
        entry = Entry(
            buffer,
            priority,
            tag,
            message[: MAX_PAYLOAD - 3 - len(tag)],
            pid,
            tid,
            uid,
            time.time_ns() if time_ns is None else time_ns,
            self._sequence,
        )
        self._rings[buffer].append(entry)
        self.used[buffer] += entry.size
        self._prune(buffer)
        for reader in list(self._readers):
            reader(entry)

    def system(
        self, priority: Priority, tag: str, message: str, *, buffer: Buffer = Buffer.SYSTEM
    ) -> None:
        """What Android itself has to say (process 1, user 1000)."""
        self.write(buffer, priority, tag.encode(), message.encode(), pid=1, tid=1, uid=1000)

    def resize(self, buffer: Buffer, limit: int) -> None:
        """Change a ring's size in bytes."""
        self.limits[buffer] = limit
        self._prune(buffer)

    def clear(self, buffers: Iterable[Buffer]) -> None:
        """Forget everything in `buffers`."""
        for buffer in buffers:
            self._rings[buffer].clear()
            self.used[buffer] = 0

    def entries(self, buffers: Iterable[Buffer]) -> list[Entry]:
        """What `buffers` hold, in the order of arrival."""
        found = [entry for buffer in buffers for entry in self._rings[buffer]]
        return sorted(found, key=lambda entry: entry.sequence)

    def attach(self, reader: Reader) -> None:
        """Call `reader` with each new entry; with None when the daemon ends."""
        self._readers.add(reader)

    def detach(self, reader: Reader) -> None:
        """Stop calling `reader`."""
        self._readers.discard(reader)

    def end(self) -> None:
        """The daemon dies, as in a reboot: readers see an unexpected end, the rings are lost."""
        for reader in list(self._readers):
            reader(None)
        self.clear(Buffer)

    def _prune(self, buffer: Buffer) -> None:
        ring = self._rings[buffer]
        while self.used[buffer] > self.limits[buffer] and len(ring) > 1:
            self.used[buffer] -= ring.popleft().size
            self.pruned[buffer] += 1
