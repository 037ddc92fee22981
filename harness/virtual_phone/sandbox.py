"""The phone's kernel boundary: Linux namespaces around everything that runs on it.

`hold` makes them and stays as their process 1; `enter` runs a program inside as an Android user.
Nothing of the phone ever runs outside: where namespaces are not to be had, starting fails.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket as sockets
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.errors import DeviceError, HarnessError, MissingTool

SHELL_UID = 2000
START_SECONDS = 20.0


@dataclass(frozen=True)
class Mount:
    """A line of the mount plan (native/hold.c explains the kinds)."""

    kind: str
    source: str
    target: str
    options: str = ""

    def line(self) -> str:
        """The plan's text."""
        return "\t".join((self.kind, self.source, self.target, self.options)) + "\n"


@dataclass(frozen=True)
class Identity:
    """Who a program inside runs as, and the rules of native/enter.c for its folders."""

    uid: int
    rules: tuple[str, ...] = ()


SHELL = Identity(
    SHELL_UID, ("readonly=/data", "keep=/data/local/tmp", "hide=/data/data", "hide=/data/system")
)
"""adb's shell: writes to /data/local/tmp and shared storage, sees no app's private folder."""


def app_identity(uid: int, data_dir: str) -> Identity:
    """An app: writes to its own folder and shared storage.

    What the shell left in /data/local/tmp it may read and map, neither write nor execute.
    """
    rules = ("readonly=/data", f"keep={data_dir}", "restrict=/data/local/tmp", "hide=/data/system")
    return Identity(uid, rules)


class Sandbox:
    """A running set of namespaces over one root folder."""

    def __init__(self, programs: Path, root: Path, mounts: Sequence[Mount]) -> None:
        self._programs = programs
        self._root = root
        self._mounts = tuple(mounts)
        self._holder: subprocess.Popen[bytes] | None = None
        self._sockets: sockets.socket | None = None
        self._socket_maker: subprocess.Popen[bytes] | None = None
        self._sockets_lock = asyncio.Lock()
        self.pid = 0

    @property
    def view(self) -> Path:
        """The root folder as processes inside see it, mounts included."""
        return Path(f"/proc/{self.pid}/root")

    def start(self) -> None:
        """Make the namespaces. Raises `HarnessError` with the remedy where they are restricted."""
        holder = subprocess.Popen(
            [self._programs / "hold", self._root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        plan = "".join(mount.line() for mount in self._mounts).encode()
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            holder.stdin.write(plan)
            holder.stdin.close()
        answer = holder.stdout.readline().decode()
        if not answer.startswith("READY "):
            holder.kill()
            raise explain(holder.stderr.read().decode("utf-8", "replace").strip())
        self._holder = holder
        self.pid = int(answer.split()[1])
        self._sockets = self._start_sockets()

    def stop(self) -> None:
        """End every process inside, as a power cut does."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        if self._socket_maker is not None:
            self._socket_maker.wait()  # it ends with its input
            self._socket_maker = None
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()
            for stream in (self._holder.stdout, self._holder.stderr):
                if stream is not None:
                    stream.close()
            self._holder = None

    def command(
        self, identity: Identity, argv: Sequence[str], *, folder: str = "/", name: str = ""
    ) -> list[str]:
        """The host's command line that runs `argv` (full path first) inside.

        `name` replaces argv[0] as the program sees it.
        """
        who = [str(self.pid), str(identity.uid), str(identity.uid), folder]
        enter = str(self._programs / "enter")
        return [enter, *who, *identity.rules, "--", argv[0], name or argv[0], *argv[1:]]

    async def socket(self, family: int, kind: int) -> sockets.socket:
        """A new socket inside the phone's network, not blocking."""
        assert self._sockets is not None, "the sandbox is not running"
        loop = asyncio.get_running_loop()
        async with self._sockets_lock:
            link = self._sockets
            made = await loop.run_in_executor(None, _ask_for_socket, link, family, kind)
        made.setblocking(False)
        return made

    def _start_sockets(self) -> sockets.socket:
        ours, theirs = sockets.socketpair()
        with theirs:
            self._socket_maker = subprocess.Popen(
                [self._programs / "sockets", str(self.pid)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return ours


def _ask_for_socket(link: sockets.socket, family: int, kind: int) -> sockets.socket:
    link.sendall(struct.pack("2i", family, kind))
    answer, ancillary, _flags, _address = link.recvmsg(4, sockets.CMSG_SPACE(4))
    for level, message, data in ancillary:
        if level == sockets.SOL_SOCKET and message == sockets.SCM_RIGHTS:
            numbers = array.array("i", data[:4])
            return sockets.socket(fileno=numbers[0])
    code = struct.unpack("i", answer)[0] if len(answer) == 4 else 5
    raise OSError(code, os.strerror(code))


def explain(message: str) -> HarnessError:
    """Why namespaces could not be made, with the command that allows them."""
    restricted = _setting("kernel/apparmor_restrict_unprivileged_userns") == "1"
    if restricted and os.geteuid() != 0:
        return MissingTool(
            "the virtual phone needs user namespaces, which this system restricts",
            cause="kernel.apparmor_restrict_unprivileged_userns is 1 (Ubuntu 23.10 and newer)",
            remedy="sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if _setting("kernel/unprivileged_userns_clone") == "0" and os.geteuid() != 0:
        return MissingTool(
            "the virtual phone needs user namespaces, which this system restricts",
            cause="kernel.unprivileged_userns_clone is 0",
            remedy="sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if _setting("user/max_user_namespaces") == "0":
        return MissingTool(
            "the virtual phone needs user namespaces, which this system restricts",
            cause="user.max_user_namespaces is 0",
            remedy="sudo sysctl -w user.max_user_namespaces=15000",
        )
    if "namespaces" in message or "uid_map" in message or "setgroups" in message:
        return MissingTool(
            "the virtual phone needs user namespaces, which this system refuses",
            cause=message,
            remedy="in a container, allow them: docker run --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined ...",
        )
    return DeviceError(
        "the virtual phone's sandbox did not start",
        cause=message or "hold ended without a word",
        remedy="harness doctor",
    )


def check() -> str:
    """What this system's sandbox is made of.

    Raises `HarnessError` with the remedy if the namespaces are refused.
    """
    argv = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork", "true"]
    try:
        done = process.run(argv, check=False, timeout=20)
    except HarnessError as failure:
        raise MissingTool(
            "unshare was not found", cause=failure.cause, remedy="sudo apt install util-linux"
        ) from failure
    if done.code != 0:
        raise explain(done.stderr.strip())
    return "user namespaces"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
