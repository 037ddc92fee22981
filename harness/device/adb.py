"""`DeviceLink` over the adb server; the adb client itself is asked for installs."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from harness import console, process
from harness.device import server, sync
from harness.device.discover import connect, read_properties, remedy
from harness.device.link import DeviceFull, DeviceGone, Progress, ShellResult, quote
from harness.device.shell import ShellStream
from harness.errors import DeviceError, HarnessError, MissingTool
from harness.files import atomic_file
from harness.tools.adb import Adb

CONNECT_SECONDS = 10.0
# A device that takes or gives no byte for so long in mid-transfer is as good as gone.
TRANSFER_SECONDS = 60.0
INSTALL_SECONDS = 300.0

_UNREACHABLE = re.compile(r"device '[^']*' not found|device (?:offline|unauthorized)|error: closed")


class AdbLink:
    """One device behind an adb server."""

    def __init__(self, adb: Adb, serial: str) -> None:
        self._adb = adb
        self._serial = serial

    @property
    def serial(self) -> str:
        """What adb calls the device."""
        return self._serial

    def shell(
        self, argv: Sequence[str], *, timeout: float = 60.0, check: bool = True
    ) -> ShellResult:
        """Run one command to its end."""
        command = quote(argv)
        console.detail(f"{self._serial} $ {command}")
        with self._errors(), contextlib.closing(self._start(command)) as stream:
            try:
                stdout, stderr = stream.collect(timeout)
            except TimeoutError as problem:
                raise DeviceError(
                    f"{self._serial} does not answer",
                    cause=f"`{argv[0]}` did not end within {timeout:.0f} s",
                    remedy=f"adb -s {self._serial} reboot   # then run the same command again",
                ) from problem
        code = stream.exit_code if stream.exit_code is not None else 255
        result = ShellResult(
            code, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
        )
        if code or result.stderr:
            console.detail(f"  exit {code} {result.stderr.strip()}")
        if check and code:
            raise DeviceError(
                f"`{argv[0]}` failed on {self._serial}",
                cause=_first_lines(result.stderr or result.stdout) or f"it ended with code {code}",
                remedy=f"adb -s {self._serial} shell {quote([command])}",
            )
        return result

    @contextlib.contextmanager
    def stream(self, argv: Sequence[str]) -> Iterator[_Lines]:
        """Start a command whose output is read while it runs."""
        command = quote(argv)
        console.detail(f"{self._serial} $ {command}   (streamed)")
        with self._errors():
            stream = self._start(command)
        try:
            yield _Lines(self, stream)
        finally:
            stream.close()

    def push(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        """Write a local file to the device."""
        console.detail(f"{self._serial} push {local} {remote}")
        with local.open("rb") as source:
            self._send(source, remote, progress)

    def push_bytes(self, data: bytes, remote: str) -> None:
        """Write bytes to a file on the device."""
        console.detail(f"{self._serial} push {len(data)} bytes {remote}")
        self._send(BytesIO(data), remote, None)

    def _send(self, source: BinaryIO, remote: str, progress: Progress | None) -> None:
        with self._errors(), self._sync() as connection:
            try:
                sync.send_file(connection, source, remote, progress=progress)
            except sync.Failed as problem:
                raise self._transfer_error("written", remote, str(problem)) from problem

    def pull(self, remote: str, local: Path, *, progress: Progress | None = None) -> None:
        """Copy a file from the device."""
        with atomic_file(local) as file:
            self._receive(remote, file, progress)

    def pull_bytes(self, remote: str) -> bytes:
        """Read a small file of the device."""
        buffer = BytesIO()
        self._receive(remote, buffer, None)
        return buffer.getvalue()

    def _receive(self, remote: str, into: BinaryIO, progress: Progress | None) -> None:
        console.detail(f"{self._serial} pull {remote}")
        received = 0
        with self._errors(), self._sync() as connection:
            try:
                for block in sync.receive_file(connection, remote):
                    into.write(block)
                    received += len(block)
                    if progress is not None:
                        progress(received)
            except sync.Failed as problem:
                raise self._transfer_error("read", remote, str(problem)) from problem

    def install(self, apk: Path) -> None:
        """Install an APK over the one that is there."""
        argv = self._adb.argv("-s", self._serial, "install", "-r", apk)
        try:
            done = process.run(argv, what="adb install", timeout=INSTALL_SECONDS, check=False)
        except MissingTool:
            raise
        except HarnessError as problem:
            raise DeviceError(
                f"{self._serial} did not install {apk.name}",
                cause=problem.cause,
                remedy=f"adb -s {self._serial} install -r {apk}",
            ) from problem
        if done.code or "Success" not in done.stdout:
            raise self._install_error(apk, done.stdout + done.stderr)

    @contextlib.contextmanager
    def forward(self, remote: str) -> Iterator[int]:
        """A local TCP port that leads to `remote` on the device."""
        port, prefix = self._adb.server_port, f"host-serial:{self._serial}"
        with self._errors():
            local = int(server.command(port, f"{prefix}:forward:tcp:0;{remote}", replies=2))
        try:
            yield local
        finally:
            with contextlib.suppress(server.Refused, server.Broken):
                server.command(port, f"{prefix}:killforward:tcp:{local}", replies=2)

    def properties(self) -> dict[str, str]:
        """The device's system properties."""
        return read_properties(self.shell(["getprop"]).stdout)

    def reconnect(self, timeout: float) -> None:
        """Wait until the device answers, starting the server where that is needed."""
        limit = time.monotonic() + timeout
        while True:
            try:
                self._adb.start_server()
                if ":" in self._serial:  # over TCP: a new server does not know of it
                    connect(self._adb, self._serial, timeout=2.0)
                self.shell(["true"], timeout=CONNECT_SECONDS)
                return
            except HarnessError as problem:
                if time.monotonic() >= limit:
                    raise self._gone(problem.cause or str(problem)) from problem
            time.sleep(0.1)

    def _start(self, command: str) -> ShellStream:
        return ShellStream(self._open(f"shell,v2,raw:{command}"))

    def _open(self, service: str) -> socket.socket:
        return server.open_service(
            self._adb.server_port, self._serial, service, timeout=CONNECT_SECONDS
        )

    @contextlib.contextmanager
    def _sync(self) -> Iterator[socket.socket]:
        with contextlib.closing(self._open("sync:")) as connection:
            connection.settimeout(TRANSFER_SECONDS)
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what goes wrong on the wire into what the user can act on."""
        try:
            yield
        except (server.Broken, server.Refused, TimeoutError) as problem:
            raise self._gone(str(problem)) from problem

    def _gone(self, reason: str) -> DeviceGone:
        return DeviceGone(
            f"{self._serial} is gone",
            cause=reason.strip() or "the connection to it broke",
            remedy=remedy(reason),
        )

    def _transfer_error(self, verb: str, remote: str, reason: str) -> DeviceError:
        kind = DeviceFull if "No space left" in reason else DeviceError
        return kind(
            f"{remote} cannot be {verb} on {self._serial}",
            cause=reason,
            remedy=f"adb -s {self._serial} shell df -h /data",
        )

    def _install_error(self, apk: Path, output: str) -> DeviceError:
        match = re.search(r"Failure \[(.*?)\]|((?:INSTALL|DELETE)_\w+.*)", output, re.DOTALL)
        reason = (match.group(1) or match.group(2)) if match else output.strip()
        code = reason.split(":")[0]
        if _UNREACHABLE.search(output):
            return self._gone(output.strip())
        kind = DeviceFull if "INSUFFICIENT_STORAGE" in code else DeviceError
        return kind(
            f"{self._serial} does not install {apk.name}",
            cause=reason or "the package manager gave no reason",
            remedy=_INSTALL_REMEDIES.get(code, "adb -s {serial} install -r {apk}").format(
                serial=self._serial, apk=apk
            ),
        )


_INSTALL_REMEDIES = {
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": "adb -s {serial} uninstall dev.alc.harness"
    "   # another key signed what is installed",
    "INSTALL_FAILED_VERSION_DOWNGRADE": "adb -s {serial} uninstall dev.alc.harness"
    "   # a newer version is installed",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "adb -s {serial} shell df -h /data",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "harness package --abi ABI   # an ABI of {serial}",
    "INSTALL_FAILED_USER_RESTRICTED": "allow installs over USB in {serial}'s developer options",
    "INSTALL_PARSE_FAILED_NO_CERTIFICATES": "harness package   # signs the APK again",
}


class _Lines:
    """A running command whose errors are the link's."""

    def __init__(self, link: AdbLink, stream: ShellStream) -> None:
        self._link = link
        self._stream = stream

    @property
    def exit_code(self) -> int | None:
        """The command's exit code once it ended."""
        return self._stream.exit_code

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        """Yield lines until the command ends."""
        try:
            yield from self._stream.lines(timeout)
        except server.Broken as problem:
            raise self._link._gone(str(problem)) from problem

    def close(self) -> None:
        """End the command."""
        self._stream.close()


def _first_lines(text: str) -> str:
    return "\n         ".join(text.strip().splitlines()[:3])
