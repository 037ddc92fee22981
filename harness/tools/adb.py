"""The Android Debug Bridge: the adb on PATH, else the one that adbutils brings."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import console, process
from harness.errors import HarnessError, MissingTool, UsageError

# Protocol 41 (platform-tools 26 and newer): shell v2, sync v2, streamed installs.
MINIMUM_PROTOCOL = 41
DEFAULT_PORT = 5037
PORT_VARIABLE = "ANDROID_ADB_SERVER_PORT"

_PROTOCOL = re.compile(r"Android Debug Bridge version 1\.0\.(\d+)")
_VERSION = re.compile(r"^Version (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Adb:
    """A usable adb client and the port of the server it talks to."""

    path: Path
    version: str
    server_port: int

    def argv(self, *arguments: str | Path) -> list[str]:
        """The command line of one call of the client."""
        return [str(self.path), "-P", str(self.server_port), *map(str, arguments)]

    def start_server(self) -> None:
        """Start the server unless it runs already.

        Raises `MissingTool` when it does not start, as when another program has its port.
        """
        try:
            process.run(self.argv("start-server"), what="adb start-server", timeout=30)
        except HarnessError as problem:
            raise MissingTool(
                f"the adb server does not start on port {self.server_port}",
                cause=problem.cause or str(problem),
                remedy=f"{PORT_VARIABLE}={self.server_port + 1} harness devices",
            ) from problem


def find() -> Adb:
    """The adb on PATH if its protocol is new enough, else the one inside adbutils.

    Raises `MissingTool` when neither serves, `UsageError` when ANDROID_ADB_SERVER_PORT is no port.
    """
    port = _server_port()
    too_old = ""
    for path in _candidates():
        version = _version(path)
        if version is None:
            too_old = f"{path} speaks a protocol older than {MINIMUM_PROTOCOL}"
            console.detail(f"adb: {too_old}")
            continue
        return Adb(path, version, port)
    raise MissingTool(
        "adb was not found",
        cause=too_old or "it is neither on PATH nor part of the installed adbutils",
        remedy="sudo apt install adb   # or: pip install --force-reinstall adbutils",
    )


def _candidates() -> list[Path]:
    on_path = shutil.which("adb")
    found = [Path(on_path)] if on_path else []
    package = importlib.util.find_spec("adbutils")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "binaries" / "adb"
        if bundled.is_file() and os.access(bundled, os.X_OK):
            found.append(bundled)
    return found


def _version(path: Path) -> str | None:
    """The release, such as "36.0.0-13206524"; None where it cannot serve."""
    try:
        text = process.run([path, "version"], what="adb version", timeout=20).stdout
    except HarnessError as problem:
        console.detail(f"adb: {path}: {problem}")
        return None
    return read_version(text)


def read_version(text: str) -> str | None:
    """The release that `adb version` prints; None for protocols below `MINIMUM_PROTOCOL`."""
    protocol = _PROTOCOL.search(text)
    if protocol is None or int(protocol.group(1)) < MINIMUM_PROTOCOL:
        return None
    release = _VERSION.search(text)
    return release.group(1) if release else f"1.0.{protocol.group(1)}"


def _server_port() -> int:
    text = os.environ.get(PORT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_PORT
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(
            f"{PORT_VARIABLE} is not a port",
            cause=f"it is {text!r}",
            remedy=f"unset {PORT_VARIABLE}",
        )
    return int(text)
