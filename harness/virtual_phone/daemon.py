"""The process that is the phone: everything put together, booted, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import files
from harness.errors import HarnessError
from harness.resources import path as resource
from harness.tools import apksig
from harness.virtual_phone import (
    bound_sockets,
    commands,
    dex,
    faults,
    kernel_facts,
    properties,
    rootfs,
)
from harness.virtual_phone.activities import ActivityManager, CrashPlan
from harness.virtual_phone.adbd import Adbd, PushFault, free_port
from harness.virtual_phone.auth import AuthMode
from harness.virtual_phone.command_socket import PATH as SYSTEM_SOCKET
from harness.virtual_phone.command_socket import CommandServer
from harness.virtual_phone.condition import Condition
from harness.virtual_phone.filesystem import DeviceFiles, Storage
from harness.virtual_phone.forwarding import PhoneSockets
from harness.virtual_phone.local_sockets import PATH as LOCAL_SOCKET
from harness.virtual_phone.local_sockets import LocalSockets
from harness.virtual_phone.log_socket import PATH as LOG_SOCKET
from harness.virtual_phone.log_socket import LogServer
from harness.virtual_phone.logd import DEFAULT_RING, SMALL_RING, Logd, LogLoss, Priority
from harness.virtual_phone.packages import PackageManager
from harness.virtual_phone.rootfs import Parts
from harness.virtual_phone.sandbox import Sandbox
from harness.virtual_phone.system import System

STATE_SCHEMA = "harness.phone/1"
STATE = "phone.json"
CONTROL = "control"
PORT = "port"
THREADS = 64
WATCH_SECONDS = 1.0
REBOOT_SECONDS = 0.5
LOW_MEMORY_MIB = 1024


@dataclass(frozen=True)
class Settings:
    """What a phone is started with; `lifecycle` writes it, the daemon reads it."""

    name: str
    folder: Path
    parts: Parts
    memory_mib: int
    storage_mib: int
    preferred_port: int | None

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "parts": self.parts.document(),
            "memory_mib": self.memory_mib,
            "storage_mib": self.storage_mib,
            "preferred_port": self.preferred_port,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Settings:
        """The settings that `document` described."""
        return cls(
            document["name"],
            Path(document["folder"]),
            Parts.from_document(document["parts"]),
            document["memory_mib"],
            document["storage_mib"],
            document["preferred_port"],
        )

    @property
    def root(self) -> Path:
        """The phone's root folder."""
        return self.folder / "rootfs"


def program_key() -> str:
    """Which program a phone runs: the SHA-256 of everything in this package."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".java", ".c", ".h"):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


class PhoneDaemon:
    """A phone that runs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        root, parts = settings.root, settings.parts
        rootfs.create(root, parts, commands.ALL)
        self._executor = ThreadPoolExecutor(THREADS)
        self._sandbox = Sandbox(parts.programs, root, rootfs.mounts(root, parts))
        storage = Storage(root / "data", settings.storage_mib << 20)
        template = resource("android-template")
        packages = PackageManager(
            root,
            parts.abi,
            storage,
            lambda: apksig.find(template, stage="phone"),
            lambda: dex.find(template, parts.framework),
        )
        ring = SMALL_RING if settings.memory_mib < LOW_MEMORY_MIB else DEFAULT_RING
        logd = Logd(ring)
        self._activities = ActivityManager(
            parts.abi, settings.memory_mib, self._sandbox, logd, packages
        )
        self._system = System(
            abi=parts.abi,
            root=root,
            sandbox=self._sandbox,
            files=DeviceFiles(lambda: self._sandbox.view),
            storage=storage,
            logd=logd,
            properties={},
            condition=Condition(),
            packages=packages,
            activities=self._activities,
            executor=self._executor,
            commands=commands.ALL,
            reboot=self._request_reboot,
        )
        self._adbd = Adbd(self._system, self._executor)
        self._port = 0
        self._program = program_key()
        self._ended = asyncio.Event()
        self._rebooting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Boot, tell the world, and serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        try:
            await self._boot()
            root = self._settings.root
            await self._activities.serve(lambda name: bound_sockets.listen(root, name))
            logs = LogServer(lambda: self._system.logd, self._activities)
            await logs.serve(bound_sockets.listen(root, LOG_SOCKET))
            local = LocalSockets(PhoneSockets(self._sandbox))
            await local.serve(bound_sockets.listen(root, LOCAL_SOCKET))
            server = CommandServer(self._system, bound_sockets.listen(root, SYSTEM_SOCKET))
            self._task(server.serve())
            control = bound_sockets.listen(self._settings.folder, CONTROL, mode=0o600)
            await asyncio.start_unix_server(self._control, sock=control)
            await self._listen()
            self._write_state()
            self._task(self._watch())
            print(f"phone {self._settings.name} is ready on port {self._port}", flush=True)
            await self._ended.wait()
        finally:
            await self._adbd.stop()
            self._sandbox.stop()
            (self._settings.folder / STATE).unlink(missing_ok=True)

    # booting

    async def _boot(self) -> None:
        settings = self._settings
        rootfs.new_boot_id(settings.root)
        self._write_meminfo()
        self._system.properties = properties.defaults(
            settings.parts.abi,
            settings.name,
            f"HARNESS{settings.name.upper()}",
            harness.__version__,
        )
        rootfs.write_properties(settings.root, self._system.properties)
        self._system.booted = time.monotonic()
        self._sandbox.start()
        self._system.logd.system(Priority.INFO, "SystemServer", "Boot completed")

    async def _listen(self) -> None:
        preferred = self._port or self._settings.preferred_port
        for _ in range(20):
            self._port = free_port(preferred)
            try:
                await self._adbd.listen(self._port)
                return
            except OSError:
                preferred = None  # somebody took it between the look and the listening
        raise OSError("no port to listen on")

    def _request_reboot(self) -> None:
        if self._rebooting is None or self._rebooting.done():
            self._rebooting = asyncio.get_running_loop().create_task(self._reboot())

    async def _reboot(self) -> None:
        await self._adbd.stop()
        self._activities.forget_all()
        self._system.logd.end()
        self._sandbox.stop()
        await asyncio.sleep(REBOOT_SECONDS)
        self._system.condition = Condition()
        await self._boot()
        await self._listen()

    # facts that change

    async def _watch(self) -> None:
        """Keep /proc/meminfo true, and end when the folder is taken away or given to another."""
        while (self._settings.folder / STATE).is_file():
            self._write_meminfo()
            await asyncio.sleep(WATCH_SECONDS)
        self._ended.set()

    def _write_meminfo(self) -> None:
        running = self._activities.running()
        # Mapped files can be read again and count as available; what was written cannot.
        taken = {each.package.name: each.memory_kib().get("Pss_Anon", 0) for each in running}
        text = kernel_facts.meminfo(self._settings.memory_mib, sum(taken.values()))
        # Written in place: a new file would not be the one that is mounted over /proc/meminfo.
        with (self._settings.root / "mnt/proc/meminfo").open("r+", encoding="ascii") as file:
            file.write(text)
            file.truncate()
        room_kib = (self._settings.memory_mib - self._system_mib()) << 10
        if taken and sum(taken.values()) > room_kib:
            name = max(taken, key=lambda each: taken[each])
            message = f"Kill '{name}', oom_score_adj 0 to free {taken[name]}kB rss: low memory"
            self._system.logd.system(Priority.INFO, "lowmemorykiller", message)
            self._activities.kill(name)

    def _system_mib(self) -> int:
        return min(kernel_facts.SYSTEM_MIB, self._settings.memory_mib // 2)

    def _write_state(self) -> None:
        document = self._settings.document()
        state = {
            "schema": STATE_SCHEMA,
            **document,
            "port": self._port,
            "serial": f"127.0.0.1:{self._port}",
            "abi": str(self._settings.parts.abi),
            "pid": os.getpid(),
            "program": self._program,
        }
        files.write_text(self._settings.folder / PORT, str(self._port))
        files.write_json(self._settings.folder / STATE, state)

    # control

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One JSON document a line: {"fault": ...} or {"ping": ...}; one answer a line."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            document = json.loads(line)
            if "ping" in document:
                return {"ok": True, "pid": os.getpid()}
            self._suffer(faults.from_document(document))
        except ValueError as problem:
            return {"ok": False, "error": str(problem)}
        return {"ok": True}

    def _suffer(self, fault: faults.Fault) -> None:
        adbd, system = self._adbd, self._system
        match fault:
            case faults.Clear():
                adbd.set_auth(AuthMode.ACCEPT)
                adbd.silent = False
                adbd.push_fault = None
                system.storage.free_override = None
                system.logd.loss = LogLoss()
                system.condition.thermal_status = 0
                self._activities.crash_plan = None
            case faults.Unauthorized(tofu):
                adbd.set_auth(AuthMode.TOFU if tofu else AuthMode.DENY)
                adbd.disconnect()
            case faults.Offline():
                adbd.silent = True
                adbd.disconnect()
            case faults.Disconnect(push_bytes):
                if push_bytes:
                    adbd.push_fault = PushFault(push_bytes)
                else:
                    adbd.disconnect()
            case faults.FullDisk(free_bytes):
                system.storage.free_override = free_bytes
            case faults.CrashApp(package, after_log_lines, number):
                plan = CrashPlan(package, after_log_lines, number)
                self._activities.crash(plan)
            case faults.LoseLog(drop, every):
                system.logd.loss = LogLoss(drop, every)
            case faults.RestartAdbd():
                self._task(self._restart_adbd())
            case faults.Reboot():
                self._request_reboot()
            case faults.Thermal(status):
                system.condition.thermal_status = status

    async def _restart_adbd(self) -> None:
        await self._adbd.stop()
        await asyncio.sleep(REBOOT_SECONDS)
        await self._listen()

    def _task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def main(argv: list[str]) -> int:
    """`python -m harness.virtual_phone SETTINGS.json`: be a phone."""
    document = json.loads(Path(argv[1]).read_text(encoding="utf-8"))

    async def live() -> None:
        await PhoneDaemon(Settings.from_document(document)).run()

    try:
        asyncio.run(live())
    except HarnessError as failure:
        answer = {"what": failure.what, "cause": failure.cause, "remedy": failure.remedy}
        answer["kind"] = type(failure).__name__
        print("FAILED " + json.dumps(answer), flush=True)
        return 1
    finally:
        sys.stdout.flush()
    # Threads of cut connections may still wait for data that never comes.
    os._exit(0)
