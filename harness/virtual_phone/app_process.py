"""One app's process: a JVM in the sandbox with the framework's classes and the APK's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import struct
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.types import Abi
from harness.virtual_phone import app_wire
from harness.virtual_phone.app_wire import FromApp, ToApp
from harness.virtual_phone.logd import Buffer, Logd, Priority
from harness.virtual_phone.packages import Package
from harness.virtual_phone.rootfs import FRAMEWORK, JAVA, QEMU
from harness.virtual_phone.sandbox import Sandbox, app_identity

MAIN_CLASS = "android.app.ActivityThread"
HEAP_MIB = 512
CONNECT_SECONDS = 120.0
ERROR_FILE = "hs_err.log"
_CRASH_SIGNAL = re.compile(r"^#\s+SIG\w+ \((0x[0-9a-f]+)\)", re.MULTILINE)
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)

Status = Callable[[int, Mapping[str, str]], None]


@dataclass(frozen=True)
class Instrumenting:
    """The instrumentation that a process is started for."""

    name: str
    arguments: Mapping[str, str]


@dataclass
class Outcome:
    """How an instrumentation ended: its own result, or how the process died."""

    code: int = 0
    results: dict[str, str] = field(default_factory=dict)
    finished: bool = False


class AppProcess:
    """A running app."""

    def __init__(
        self, package: Package, sandbox: Sandbox, logd: Logd, instrumenting: Instrumenting | None
    ) -> None:
        self.package = package
        self.instrumenting = instrumenting
        self.outcome = Outcome()
        self.on_status: Status | None = None
        self.pid = 0
        """The process id as the phone sees it."""
        self.host_pid = 0
        self.ended = asyncio.Event()
        self.log_lines = 0
        self._sandbox = sandbox
        self._logd = logd
        self._writer: asyncio.StreamWriter | None = None
        self._bound = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._child: asyncio.subprocess.Process | None = None

    async def start(self, abi: Abi, token: str, memory_mib: int) -> None:
        """Start the JVM; it says hello on the activity manager's socket with `token`."""
        argv = _command_line(self.package, abi, token, memory_mib)
        command = self._sandbox.command(
            app_identity(self.package.uid, self.package.data_dir),
            argv,
            folder="/",
            name=self.package.name if abi is Abi.X86_64 else "",
        )
        self._child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(self.package),
            start_new_session=True,
        )
        assert self._child.stdout is not None and self._child.stderr is not None
        self._task(self._log_lines(self._child.stdout, "System.out", Priority.INFO))
        self._task(self._log_lines(self._child.stderr, "System.err", Priority.WARN))
        self._task(self._watch())

    def connected(self, host_pid: int, pid: int, writer: asyncio.StreamWriter) -> None:
        """The process said hello: tell it who it is."""
        self.host_pid, self.pid = host_pid, pid
        self._writer = writer
        package = self.package
        facts = {
            "package": package.name,
            "sourceDir": package.apk,
            "classes": package.classes,
            "nativeLibraryDir": package.native_library_dir,
            "dataDir": package.data_dir,
            "application": package.application or "",
            "versionName": package.version_name,
            "versionCode": str(package.version_code),
            "targetSdkVersion": str(package.target_sdk),
            "debuggable": str(package.debuggable).lower(),
            "uid": str(package.uid),
            "instrumentation": self.instrumenting.name if self.instrumenting else "",
        }
        arguments = self.instrumenting.arguments if self.instrumenting else {}
        self._send(ToApp.BIND, app_wire.bundle(facts) + app_wire.bundle(arguments))
        self._bound.set()

    def received(self, kind: int, body: bytes) -> None:
        """A frame from the process; raises `app_wire.WireError`."""
        reader = app_wire.Reader(body)
        if kind == FromApp.STATUS:
            code, values = reader.integer(), reader.bundle()
            if self.on_status is not None:
                self.on_status(code, values)
        elif kind == FromApp.FINISH:
            self.outcome = Outcome(reader.integer(), reader.bundle(), finished=True)
            # As on a phone, the end of an instrumentation is the end of its app.
            self.kill()
        elif kind == FromApp.EXCEPTION:
            name, message = reader.text(), reader.text()
            results = {"shortMsg": name, "longMsg": message}
            self.outcome = Outcome(0, results, finished=True)
        else:
            raise app_wire.WireError(f"unknown kind {kind}")

    async def launch(self, activity: str, extras: Mapping[str, str]) -> bool:
        """Show an activity; False if the process did not come up."""
        try:
            await asyncio.wait_for(self._bound.wait(), CONNECT_SECONDS)
        except TimeoutError:
            return False
        self._send(ToApp.LAUNCH_ACTIVITY, app_wire.text(activity) + app_wire.bundle(extras))
        return not self.ended.is_set()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the process at once."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # Before the hello only the wrapper is known; its end takes the program with it.
                os.kill(self.host_pid or self._child.pid, number)

    def memory_kib(self) -> dict[str, int]:
        """Pss, Rss and the like in KiB (/proc/PID/smaps_rollup), {} when it has ended."""
        try:
            text = Path(f"/proc/{self.host_pid}/smaps_rollup").read_text(encoding="ascii")
        except (OSError, ValueError):
            return {}
        rows = (line.split() for line in text.splitlines()[1:])
        return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3}

    async def _watch(self) -> None:
        assert self._child is not None
        code = await self._child.wait()
        await asyncio.gather(*self._tasks[:2], return_exceptions=True)
        if not self.outcome.finished:
            self.outcome.results = self._death(code)
        self._bound.set()
        self.ended.set()
        if self._writer is not None:
            self._writer.close()

    def _death(self, code: int) -> dict[str, str]:
        """What the activity manager says of a process that ended without a word."""
        number = -code if code < 0 else 0
        who = f"{self.package.name} (pid {self.pid})"
        if number == signal.SIGABRT:
            number = self._crash_signal() or number
        if number in _CRASHES:
            name = signal.strsignal(number) or f"signal {number}"
            text = f"Fatal signal {number} ({signal.Signals(number).name}) in {who}"
            self._log(Buffer.CRASH, Priority.FATAL, b"libc", text.encode())
            return {"shortMsg": "Native crash", "longMsg": f"Native crash: {name}"}
        self._logd.system(Priority.INFO, "ActivityManager", f"Process {who} has died: fg TOP")
        return {"shortMsg": "Process crashed."}

    def _crash_signal(self) -> int | None:
        """The signal that made the JVM abort, from the report that it writes."""
        report = self._sandbox.view / f"{self.package.data_dir}/cache/{ERROR_FILE}".lstrip("/")
        try:
            found = _CRASH_SIGNAL.search(report.read_text(encoding="utf-8", errors="replace"))
            report.unlink()
        except OSError:
            return None
        return int(found.group(1), 16) if found else None

    def _send(self, kind: ToApp, body: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(app_wire.frame(kind, body))

    async def _log_lines(self, stream: asyncio.StreamReader, tag: str, priority: Priority) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # a line longer than the reader's limit; the rest follows
            if not line:
                return
            self._log(Buffer.MAIN, priority, tag.encode(), line.rstrip(b"\r\n"))

    def _log(self, buffer: Buffer, priority: Priority, tag: bytes, message: bytes) -> None:
        pid, uid = self.pid, self.package.uid
        self._logd.write(buffer, priority, tag, message, pid=pid, tid=pid, uid=uid)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    """The next frame, None at the end; raises `app_wire.WireError`."""
    try:
        length, kind = struct.unpack(">IB", await reader.readexactly(5))
        if not 1 <= length <= app_wire.MAX_FRAME:
            raise app_wire.WireError(f"a frame of {length} bytes")
        return kind, await reader.readexactly(length - 1)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _command_line(package: Package, abi: Abi, token: str, memory_mib: int) -> list[str]:
    heap = min(HEAP_MIB, memory_mib // 4)
    cache = f"{package.data_dir}/cache"
    flags = [
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        f"-Xmx{heap}m",
        f"-XX:MaxDirectMemorySize={heap}m",
        "-Xss1m",
        "-XX:-UsePerfData",
        "-XX:-UseContainerSupport",
        f"-XX:ErrorFile={cache}/{ERROR_FILE}",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        f"-Djava.io.tmpdir={cache}",
        f"-Duser.home={package.data_dir}",
        "-Duser.timezone=UTC",
        "-Duser.language=en",
        "-Duser.country=US",
    ]
    if abi is Abi.ARM64:
        # Under emulation the optimizing compiler costs more than it ever pays back.
        flags.append("-XX:TieredStopAtLevel=1")
    emulator = [QEMU] if abi is Abi.ARM64 else []
    return [*emulator, JAVA, *flags, "-cp", FRAMEWORK, MAIN_CLASS, token]


def _environment(package: Package) -> dict[str, str]:
    return {
        "ANDROID_DATA": "/data",
        "ANDROID_ROOT": "/system",
        "EXTERNAL_STORAGE": "/sdcard",
        "HOME": package.data_dir,
        "LANG": "C.UTF-8",
        "PATH": "/system/bin",
        "TMPDIR": f"{package.data_dir}/cache",
    }
