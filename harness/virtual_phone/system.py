"""What runs on the phone above its kernel: the state that Android's commands show and change."""

from __future__ import annotations

import re
import shlex
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from harness.types import Abi
from harness.virtual_phone.activities import ActivityManager
from harness.virtual_phone.calls import Call, CallerGone
from harness.virtual_phone.condition import Condition
from harness.virtual_phone.filesystem import DeviceFiles, Storage
from harness.virtual_phone.logd import Logd
from harness.virtual_phone.packages import PackageManager
from harness.virtual_phone.sandbox import Sandbox

Command = Callable[["System", Call], Awaitable[int]]

SHELL_ENVIRONMENT = {
    "ANDROID_DATA": "/data",
    "ANDROID_ROOT": "/system",
    "ANDROID_STORAGE": "/storage",
    "EXTERNAL_STORAGE": "/sdcard",
    "HOME": "/",
    "HOSTNAME": "localhost",
    "LOGNAME": "shell",
    "PATH": "/product/bin:/system/bin:/vendor/bin",
    "SHELL": "/system/bin/sh",
    "TMPDIR": "/data/local/tmp",
    "USER": "shell",
}

_NEEDS_SHELL = re.compile(r"[|&;<>()$`\\\n*?\[#~={}!]")
# Commands that hand their caller's standard streams on to a program.
_WANTS_STREAMS = ("run-as",)
_LOGCAT = re.compile(r'export ANDROID_LOG_TAGS="([^"]*)"; exec logcat( .*)?', re.DOTALL)


@dataclass
class System:
    """The phone's services."""

    abi: Abi
    root: Path
    sandbox: Sandbox
    files: DeviceFiles
    storage: Storage
    logd: Logd
    properties: dict[str, str]
    condition: Condition
    packages: PackageManager
    activities: ActivityManager
    executor: Executor
    commands: Mapping[str, Command]
    reboot: Callable[[], None]
    booted: float = 0.0

    def uptime(self) -> float:
        """Seconds since the phone booted."""
        return time.monotonic() - self.booted

    async def run(self, call: Call) -> int:
        """Carry out a command; returns its exit code."""
        command = self.commands.get(call.argv[0])
        if command is None:
            name = call.argv[0]
            return await call.fail(f"/system/bin/sh: {name}: inaccessible or not found", 127)
        try:
            return await command(self, call)
        except CallerGone:
            return 141
        except Exception as problem:
            traceback.print_exc()
            return await call.fail(
                f"Exception occurred while executing '{call.argv[0]}': {problem}", 255
            )

    def direct(self, command: str) -> tuple[list[str], str] | None:
        """The words and $ANDROID_LOG_TAGS of a shell command that needs no shell, else None.

        Starting none is faster, and the command outlives no connection. What `adb logcat` sends
        is recognized too.
        """
        tags = ""
        found = _LOGCAT.fullmatch(command)
        if found:
            tags, command = found.group(1), "logcat" + (found.group(2) or "")
        text = command.removeprefix("exec ")
        try:
            words = shlex.split(text)
        except ValueError:
            return None
        if not words or words[0] not in self.commands or words[0] in _WANTS_STREAMS:
            return None
        # Quoted text is taken as it is by both; outside quotes only a shell may interpret.
        if _NEEDS_SHELL.search(_unquoted(text)):
            return None
        return words, tags


def _unquoted(text: str) -> str:
    """`text` without what stands in single quotes (which no shell looks into)."""
    return re.sub(r"'[^']*'", "", text)
