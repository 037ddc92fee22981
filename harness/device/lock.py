"""One user of a device at a time: a lock on the host for each serial, and one on the device.

The host's lock keeps two commands of this user apart. The device's keeps apart two hosts that
reach one phone over the network: a folder made by a shell that lives as long as the block. If that
shell dies with the connection the folder stays, but names a dead process, and the next user
takes it over.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import console
from harness.device.link import DeviceGone, DeviceLink
from harness.errors import DeviceError
from harness.tools.pip import cache_folder

DEVICE_FOLDER = "/data/local/tmp/harness"
POLL_SECONDS = 0.3
# A user that has just ended needs a moment to let go; waiting for it is not worth a word.
SILENT_SECONDS = 1.5
ANSWER_SECONDS = 20.0

# $1 the folder, $2 who takes it. Prints "taken", or "busy" and the owner.
_HOLD = """
mkdir -p "${1%/*}" || exit 1
chmod 755 "${1%/*}"
if ! mkdir "$1" 2>/dev/null; then
  [ -e "$1/owner" ] || sleep 1   # it may be in the making
  pid=$(cat "$1/pid" 2>/dev/null); boot=$(cat "$1/boot" 2>/dev/null)
  if [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ] && kill -0 "$pid" 2>/dev/null; then
    echo "busy $(cat "$1/owner" 2>/dev/null)"; exit 0
  fi
  rm -rf "$1"
  mkdir "$1" 2>/dev/null || { echo "busy"; exit 0; }
fi
echo $$ > "$1/pid"; cat /proc/sys/kernel/random/boot_id > "$1/boot"; echo "$2" > "$1/owner"
trap 'rm -rf "$1"; exit 0' HUP TERM
echo taken
cat > /dev/null
rm -rf "$1"
"""


@contextlib.contextmanager
def hold(link: DeviceLink, *, timeout: float = 600.0) -> Iterator[None]:
    """Be the only user of a device; waits for another one and says so.

    Raises `DeviceError` when the other user is not done after `timeout` seconds.
    """
    limit = time.monotonic() + timeout
    with _host_lock(link.serial, limit), _device_lock(link, limit):
        yield


@contextlib.contextmanager
def _host_lock(serial: str, limit: float) -> Iterator[None]:
    import filelock

    path = lock_path(serial)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=0)
    owner = path.with_suffix(".owner")

    def take() -> str | None:
        try:
            lock.acquire()
            return None
        except filelock.Timeout:
            return _read(owner) or "another command"

    _wait(serial, take, limit)
    try:
        owner.write_text(_myself() + "\n", encoding="utf-8")
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _device_lock(link: DeviceLink, limit: float) -> Iterator[None]:
    with contextlib.ExitStack() as stack:

        def take() -> str | None:
            with contextlib.ExitStack() as attempt:
                argv = ["sh", "-c", _HOLD, "sh", f"{DEVICE_FOLDER}/lock", _myself()]
                stream = attempt.enter_context(link.stream(argv))
                answer = next(stream.lines(ANSWER_SECONDS), "nothing")
                if answer == "taken":
                    stack.push(attempt.pop_all())
                    return None
                if answer.startswith("busy"):
                    return answer.removeprefix("busy").strip() or "another host"
                raise DeviceError(
                    f"{link.serial} cannot be locked",
                    cause=answer,
                    remedy=f"adb -s {link.serial} shell ls -la {DEVICE_FOLDER}",
                )

        try:
            _wait(link.serial, take, limit)
        except TimeoutError as problem:
            raise DeviceGone(
                f"{link.serial} does not answer",
                cause=str(problem),
                remedy="harness devices",
            ) from problem
        yield


def _wait(serial: str, take: Callable[[], str | None], limit: float) -> None:
    """Call `take` until it returns None; what it returns else is who has the lock."""
    said, began = "", time.monotonic()
    while (owner := take()) is not None:
        if time.monotonic() >= limit:
            raise DeviceError(
                f"{serial} is in use",
                cause=f"{owner} has not let go of it",
                remedy="wait for it to end, or use another device with -s",
            )
        if owner != said and time.monotonic() - began >= SILENT_SECONDS:
            console.info(f"waiting for {serial}: {owner} uses it")
            said = owner
        time.sleep(POLL_SECONDS)


def lock_path(serial: str) -> Path:
    """The host's lock file for a device; the same in every workspace of a user."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", serial)
    return cache_folder() / "locks" / f"{name}.lock"


def _myself() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:100]
    return f"`{command}` (process {os.getpid()} on {socket.gethostname()})"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
