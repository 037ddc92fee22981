"""The activity manager: one process for each app, started for a screen or for instrumentation."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.types import Abi
from harness.virtual_phone import app_wire
from harness.virtual_phone.app_process import AppProcess, Instrumenting, read_frame
from harness.virtual_phone.logd import Logd, Priority
from harness.virtual_phone.packages import Package, PackageManager
from harness.virtual_phone.sandbox import Sandbox

SOCKET = "dev/socket/activity"


@dataclass
class CrashPlan:
    """A fault: the app dies by `signal` when it has written `after_log_lines` more log lines."""

    package: str
    after_log_lines: int
    signal: int = signal.SIGKILL


class ActivityManager:
    """Apps that run. Methods belong to the event loop's thread."""

    def __init__(
        self,
        abi: Abi,
        memory_mib: int,
        sandbox: Sandbox,
        logd: Logd,
        packages: PackageManager,
    ) -> None:
        self._abi = abi
        self._memory_mib = memory_mib
        self._sandbox = sandbox
        self._logd = logd
        self._packages = packages
        self._processes: dict[str, AppProcess] = {}
        self._awaited: dict[str, AppProcess] = {}
        self._forgetting: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.crash_plan: CrashPlan | None = None

    async def serve(self, bind: Callable[[str], socket.socket]) -> None:
        """Listen for apps; `bind` makes a listening Unix socket at a path of the phone."""
        listener = bind(SOCKET)
        self._server = await asyncio.start_unix_server(self._talk, sock=listener)

    def running(self) -> list[AppProcess]:
        """Every app that runs."""
        return list(self._processes.values())

    def by_host_pid(self, host_pid: int) -> AppProcess | None:
        """The app whose process has this id on the host."""
        return next((each for each in self.running() if each.host_pid == host_pid), None)

    async def start_activity(
        self, package: Package, activity: str, extras: Mapping[str, str]
    ) -> bool:
        """Show an activity in the app's process, starting it if need be."""
        self._say(f"START u0 {{cmp={package.name}/{activity}}} from uid 2000")
        process = self._processes.get(package.name)
        if process is None:
            process = await self._start(package, None)
        return await process.launch(activity, extras)

    async def instrument(self, package: Package, instrumenting: Instrumenting) -> AppProcess:
        """Start the app anew for an instrumentation; whatever ran of it is ended first."""
        await self.force_stop(package.name)
        return await self._start(package, instrumenting)

    async def force_stop(self, name: str) -> None:
        """End an app at once and wait until it is gone."""
        process = self._processes.get(name)
        if process is not None:
            self._say(f"Force stopping {name} appid={process.package.uid} user=0: from pid 1")
            process.kill()
            await process.ended.wait()

    def kill(self, name: str) -> None:
        """End an app at once without waiting."""
        process = self._processes.get(name)
        if process is not None:
            process.kill()

    def crash(self, plan: CrashPlan) -> None:
        """Let an app die as planned; a plan for no log lines is carried out at once."""
        process = self._processes.get(plan.package)
        if plan.after_log_lines == 0 and process is not None:
            process.kill(plan.signal)
        else:
            self.crash_plan = plan

    def forget_all(self) -> None:
        """The phone reboots: every process dies with the sandbox."""
        for process in self.running():
            process.kill()
        self._processes.clear()
        self._awaited.clear()

    def logged(self, process: AppProcess) -> None:
        """The app wrote a log line; a crash plan may be due."""
        process.log_lines += 1
        plan = self.crash_plan
        if plan is None or plan.package != process.package.name:
            return
        plan.after_log_lines -= 1
        if plan.after_log_lines < 0:
            self.crash_plan = None
            process.kill(plan.signal)

    async def _start(self, package: Package, instrumenting: Instrumenting | None) -> AppProcess:
        process = AppProcess(package, self._sandbox, self._logd, instrumenting)
        token = secrets.token_hex(16)
        self._processes[package.name] = process
        self._awaited[token] = process
        reason = f"added application {package.name}" if instrumenting else "top-activity"
        self._say(f"Start proc {package.name}/u0a{package.uid - 10000} for {reason}")
        await process.start(self._abi, token, self._memory_mib)
        forgetting = asyncio.get_running_loop().create_task(self._forget(process, token))
        self._forgetting.add(forgetting)
        forgetting.add_done_callback(self._forgetting.discard)
        return process

    async def _forget(self, process: AppProcess, token: str) -> None:
        await process.ended.wait()
        self._awaited.pop(token, None)
        if self._processes.get(process.package.name) is process:
            del self._processes[process.package.name]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            process = await self._greet(reader, writer)
            while process is not None and (received := await read_frame(reader)):
                process.received(*received)
        except app_wire.WireError as problem:
            print(f"activity: dropping a process: {problem}", flush=True)
        finally:
            writer.close()

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> AppProcess | None:
        received = await read_frame(reader)
        if received is None or received[0] != app_wire.FromApp.HELLO:
            return None
        process = self._awaited.pop(app_wire.Reader(received[1]).text(), None)
        if process is not None:
            host_pid, _uid = peer(writer.get_extra_info("socket"))
            process.connected(host_pid, phone_pid(host_pid), writer)
        return process

    def _say(self, message: str) -> None:
        self._logd.system(Priority.INFO, "ActivityManager", message)


def peer(link: socket.socket) -> tuple[int, int]:
    """Process and user id at the other end of a Unix socket, as the host sees them."""
    data = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", data)
    return pid, uid


def phone_pid(host_pid: int) -> int:
    """The id that a process has inside the phone."""
    try:
        for line in Path(f"/proc/{host_pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return host_pid
