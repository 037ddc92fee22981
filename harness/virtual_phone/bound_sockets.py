"""Unix sockets at paths of the phone, and descriptors that come over them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

BACKLOG = 64


def listen(root: Path, name: str, *, mode: int = 0o666) -> socket.socket:
    """A listening Unix stream socket at `root`/`name`, not blocking, by default for every user.

    It is bound through the folder's descriptor: a Unix address has room for 107 bytes only, and a
    workspace's path may be longer.
    """
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    path.chmod(mode)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def connect(root: Path, name: str, timeout: float) -> socket.socket:
    """A blocking connection to the socket that `listen` made; raises OSError."""
    path = root / name
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(timeout)
    try:
        link.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        link.close()
        raise
    finally:
        os.close(folder)
    return link
