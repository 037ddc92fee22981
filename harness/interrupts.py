"""Ctrl-C as something that a program waits for, rather than as something that befalls it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

_READ_BYTES = 1 << 16
_END = bytes([0])  # no signal has this number
_AGAIN_SECONDS = 0.05


class Interrupts:
    """While it is entered Ctrl-C is counted, and seen by `select`, rather than raised.

    For the main thread. A signal may come just before a wait begins, or to a thread that does not
    wait; Python's own handler then runs only once the wait is over. So the count is of what the
    interpreter notes at once, from whichever thread (`signal.set_wakeup_fd`).
    """

    def __init__(self) -> None:
        self._raise = False
        self._previous: Any = None
        self._previous_wakeup = -1
        self._reader, self._writer = -1, -1

    def __enter__(self) -> Interrupts:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._previous = signal.signal(signal.SIGINT, self._interrupted)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *problem: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup)
        signal.signal(signal.SIGINT, self._previous)
        os.close(self._reader)
        os.close(self._writer)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._raise:
            self._raise = False
            raise KeyboardInterrupt

    def fileno(self) -> int:
        """Readable when there was one."""
        return self._reader

    def take(self) -> int:
        """How many there were since it was last asked."""
        try:
            return os.read(self._reader, _READ_BYTES).count(signal.SIGINT)
        except BlockingIOError:
            return 0

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """As `KeyboardInterrupt`, once, for the time of a block that waits without `select`.

        What came before the block was meant for what went before, and is forgotten.
        """
        self.take()
        watch = threading.Thread(target=self._insist, args=(threading.get_ident(),), daemon=True)
        watch.start()
        try:
            self._raise = True
            yield
        finally:
            self._raise = False
            os.write(self._writer, _END)
            watch.join()
            self.take()

    def _insist(self, waiting: int) -> None:
        """Send signals that were noted to the thread that waits in the block, until it ends."""
        while select.select([self], [], [])[0] and _END not in os.read(self._reader, _READ_BYTES):
            # Most often it has seen the signal by itself.
            time.sleep(_AGAIN_SECONDS)
            if self._raise:
                signal.pthread_kill(waiting, signal.SIGINT)
