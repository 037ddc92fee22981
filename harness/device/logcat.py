"""logcat: its lines as values, and a reader that outlives a broken connection."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness import console
from harness.device.link import DeviceGone, DeviceLink
from harness.errors import DeviceError

FORMAT = ("-v", "threadtime", "-v", "epoch", "-v", "usec")
RETRY_SECONDS = 0.5

# `%19lld.%06ld %5d %5d %c %-8s: %s` of AOSP's liblog (logprint.cpp) with these three formats.
_ENTRY = re.compile(r"\s*(\d+)\.(\d{6})\s+(\d+)\s+(\d+)\s([VDIWEFS])\s(.*?)\s*: (.*)")


@dataclass(frozen=True)
class Entry:
    """One line of the log; `time_us` is microseconds of the device's wall clock."""

    time_us: int
    pid: int
    tid: int
    priority: str
    tag: str
    message: str


def parse(line: str) -> Entry | None:
    """A line of `logcat -v threadtime -v epoch -v usec`; None for dividers and noise."""
    match = _ENTRY.fullmatch(line.rstrip("\r\n"))
    if match is None:
        return None
    seconds, micros, pid, tid, priority, tag, message = match.groups()
    time_us = int(seconds) * 1_000_000 + int(micros)
    return Entry(time_us, int(pid), int(tid), priority, tag, message)


def since(time_us: int) -> str:
    """A time as the option -T takes it."""
    return f"{time_us // 1_000_000}.{time_us % 1_000_000:06d}"


class LogReader:
    """Follows the log in a thread from a given time on.

    When the connection breaks it asks again, from the last line's time on, until the block ends;
    lines of that very microsecond come twice. What the ring buffer has lost by then does not come
    at all: callers that must not lose anything check for themselves.
    """

    def __init__(
        self,
        link: DeviceLink,
        on_entry: Callable[[Entry], None],
        *,
        filters: Sequence[str],
        start_us: int,
    ) -> None:
        self._link = link
        self._on_entry = on_entry
        self._filters = list(filters)
        self._from_us = start_us
        self._stop = threading.Event()
        self._close: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._follow, name="logcat", daemon=True)

    def __enter__(self) -> LogReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._close()
        self._thread.join(timeout=10)

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
                if not self._stop.is_set():
                    console.detail("logcat ended; asking again")
            except DeviceGone as problem:
                console.detail(f"logcat broke off: {problem}")
            except DeviceError as problem:
                console.detail(f"logcat failed: {problem}")
            self._stop.wait(RETRY_SECONDS)

    def _read(self) -> None:
        argv = ["logcat", *FORMAT, "-T", since(self._from_us), *self._filters, "*:S"]
        with self._link.stream(argv) as stream:
            self._close = stream.close
            if self._stop.is_set():
                return
            for line in stream.lines():
                entry = parse(line)
                if entry is None:
                    continue
                self._from_us = max(self._from_us, entry.time_us)
                self._on_entry(entry)
