"""The phone's files as adbd sees them: paths, what the shell user may touch, and free space."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_LINKS = 40
USED_SECONDS = 0.5

SHARED_STORAGE = "/storage/emulated/0"
WRITABLE = ("/data/local/tmp", SHARED_STORAGE, "/dev/null", "/dev/shm")
HIDDEN = ("/data/data", "/data/user", "/data/user_de", "/data/system", "/mnt/nothing")


@dataclass(frozen=True)
class Place:
    """A path on the phone without links in it, and where it lies on the host."""

    device: str
    host: str


class DeviceFiles:
    """Resolves device paths inside the phone's own root, never outside it."""

    def __init__(self, root: Callable[[], Path]) -> None:
        self._root = root

    def resolve(self, path: str, *, follow: bool = True) -> Place:
        """Where `path` leads. With `follow`, a link at its end is followed too.

        Raises OSError (ELOOP) when links go in circles.
        """
        root = str(self._root())
        pending = [part for part in path.split("/") if part not in ("", ".")]
        found: list[str] = []
        links = 0
        while pending:
            part = pending.pop(0)
            if part == "..":
                if found:
                    found.pop()
                continue
            full = "/".join((root, *found, part))
            if (pending or follow) and Path(full).is_symlink():
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(full)  # noqa: PTH115 (the bytes matter, not a normal form)
                if target.startswith("/"):
                    found = []
                pending = [item for item in target.split("/") if item not in ("", ".")] + pending
                continue
            found.append(part)
        return Place("/" + "/".join(found), "/".join((root, *found)))

    def readable(self, path: str, *, follow: bool = True) -> str:
        """The host's path of something that the shell user may read.

        Raises OSError (EACCES) for what an app keeps to itself.
        """
        place = self.resolve(path, follow=follow)
        if _below(place.device, HIDDEN) and place.device not in HIDDEN:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return place.host

    def writable(self, path: str) -> str:
        """The host's path of something that the shell user may write.

        Raises OSError: EACCES inside /data, EROFS elsewhere.
        """
        place = self.resolve(path, follow=False)
        if _below(place.device, WRITABLE):
            return place.host
        code = errno.EACCES if _below(place.device, ("/data",)) else errno.EROFS
        raise OSError(code, os.strerror(code))


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


class Storage:
    """How much of /data is used and free, in bytes.

    The limit holds for what comes over adb (push, install), which the daemon writes itself.
    """

    def __init__(self, data: Path, capacity: int) -> None:
        self.capacity = capacity
        self.free_override: int | None = None
        self._data = data
        self._measured = -USED_SECONDS
        self._used = 0

    def used(self) -> int:
        """Bytes that the files of /data take."""
        now = time.monotonic()
        if now - self._measured >= USED_SECONDS:
            self._used = _tree_bytes(self._data)
            self._measured = now
        return self._used

    def free(self) -> int:
        """Bytes that can still be written."""
        if self.free_override is not None:
            return self.free_override
        return max(0, self.capacity - self.used())

    def wrote(self, amount: int) -> None:
        """`amount` bytes were written since the last measurement."""
        self._used += amount
        if self.free_override is not None:
            self.free_override = max(0, self.free_override - amount)


def _tree_bytes(folder: Path) -> int:
    total = 0
    for base, _folders, names in os.walk(folder, onerror=None):
        for name in names:
            try:
                facts = os.lstat(f"{base}/{name}")
            except OSError:
                continue  # deleted while we looked
            if stat.S_ISREG(facts.st_mode):
                total += facts.st_blocks * 512
    return total
