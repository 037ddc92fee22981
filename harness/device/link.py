"""What the harness asks of a connection to a device. Quoting for the device's shell ends here."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import DeviceError

# Called with the bytes moved so far.
Progress = Callable[[int], None]


class DeviceGone(DeviceError):
    """The connection to the device broke, or it was not there; it may come back."""


class DeviceFull(DeviceError):
    """The device had no room for what was written to it."""


@dataclass(frozen=True)
class ShellResult:
    """A command that ended on the device."""

    code: int
    stdout: str
    stderr: str


class LineStream(Protocol):
    """The output of a command on the device, line by line, while it runs."""

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        """Yield lines (without their ends) until the command ends.

        Raises `TimeoutError` after `timeout` seconds without a line; call again to go on.
        Raises `DeviceGone` when the connection breaks first.
        """
        ...

    @property
    def exit_code(self) -> int | None:
        """The command's exit code once it ended."""
        ...

    def close(self) -> None:
        """End the command; may be called from another thread than the reader's."""
        ...


class DeviceLink(Protocol):
    """A connection to one device.

    Every call raises `DeviceGone` when the device is not there or the connection breaks.
    """

    @property
    def serial(self) -> str:
        """What adb calls the device."""
        ...

    def shell(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 60.0,
        check: bool = True,
    ) -> ShellResult:
        """Run one command to its end.

        Raises `DeviceError` if it runs past `timeout` seconds or (with `check`) fails.
        """
        ...

    def stream(self, argv: Sequence[str]) -> AbstractContextManager[LineStream]:
        """Start a command whose output is read while it runs; the block's end ends it."""
        ...

    def push(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        """Write a local file's bytes to `remote`, readable by all (mode 0644).

        Raises `DeviceFull`, or `DeviceError` with the device's own words. A push that failed may
        leave a part of the file behind.
        """
        ...

    def push_bytes(self, data: bytes, remote: str) -> None:
        """Like `push`, from memory."""
        ...

    def pull(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        """Copy a file from the device; `local` appears whole or not at all."""
        ...

    def pull_bytes(self, remote: str) -> bytes:
        """Like `pull`, into memory: for small files."""
        ...

    def install(self, apk: Path) -> None:
        """Install an APK over the one that is there.

        Raises `DeviceError` with the package manager's reason.
        """
        ...

    def forward(self, remote: str) -> AbstractContextManager[int]:
        """A local TCP port that leads to `remote`, such as "localabstract:name"."""
        ...

    def properties(self) -> dict[str, str]:
        """The device's system properties."""
        ...

    def reconnect(self, timeout: float) -> None:
        """Wait until the device answers again, starting the server where that is needed."""
        ...


def quote(argv: Sequence[str]) -> str:
    """An argument list as text for the device's shell, which reads it back unchanged."""
    if not argv or any("\0" in word for word in argv):
        raise ValueError(f"not a command line: {list(argv)!r}")
    return " ".join(shlex.quote(word) for word in argv)
