"""The host's hold on virtual phones: start, find, stop, and make them misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console, errors, files
from harness.errors import DeviceError, HarnessError, UsageError
from harness.tools import jdk, qemu
from harness.types import Abi
from harness.virtual_phone import (
    bound_sockets,
    faults,
    framework,
    java_runtime,
    kernel_facts,
    native_tools,
    rootfs,
)
from harness.virtual_phone.daemon import (
    CONTROL,
    PORT,
    STATE,
    STATE_SCHEMA,
    Settings,
    program_key,
)
from harness.virtual_phone.faults import Fault
from harness.virtual_phone.rootfs import Parts

START_SECONDS = 60.0
STOP_SECONDS = 10.0
CONTROL_SECONDS = 5.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DEFAULT_NAMES = {Abi.ARM64: "arm64", Abi.X86_64: "x86-64"}


@dataclass(frozen=True)
class Phone:
    """A virtual phone that runs. `folder` keeps its files, its log and its state."""

    name: str
    serial: str
    abi: Abi
    port: int
    folder: Path
    pid: int

    def stop(self) -> None:
        """End the phone; its /data stays. Nothing happens if it has ended already."""
        if not _alive(self):
            return
        _signal(self.pid, signal.SIGTERM)
        if not _wait_for_end(self, STOP_SECONDS):
            _signal(self.pid, signal.SIGKILL)
            _wait_for_end(self, STOP_SECONDS)
        (self.folder / STATE).unlink(missing_ok=True)

    def inject(self, fault: Fault) -> None:
        """Make the phone misbehave. Raises `DeviceError` if it does not answer."""
        answer = _ask(self.folder, faults.to_document(fault))
        if not answer.get("ok"):
            raise DeviceError(
                f"the virtual phone {self.name} refuses {type(fault).__name__}",
                cause=str(answer.get("error", "")),
                remedy="harness phone status",
            )


def inject(phone: Phone, fault: Fault) -> None:
    """Make `phone` misbehave. Raises `DeviceError` if it does not answer."""
    phone.inject(fault)


def start(
    abi: Abi,
    workspace: Path,
    *,
    name: str | None = None,
    memory_mib: int = 4096,
    storage_mib: int = 4096,
) -> Phone:
    """A running phone of this name in `workspace`; one that runs already is taken as it is.

    The phone outlives this process. Raises `MissingTool` with the remedy where the system lacks
    something or restricts user namespaces, `UsageError` where a phone of this name is of another
    make, and `DeviceError` if it does not come up.
    """
    chosen = _DEFAULT_NAMES[abi] if name is None else name
    if not _NAME.fullmatch(chosen):
        raise UsageError(
            f"{chosen!r} is no name for a phone",
            cause="it takes lower-case letters, digits, - and _",
            remedy="harness phone start",
        )
    folder = workspace.resolve() / ".harness" / "phones" / chosen
    with _disk_errors(folder), _made_and_locked(folder):
        running = _find(folder)
        if running is not None:
            _check_same(running, abi, folder, memory_mib, storage_mib)
            if (_state(folder) or {}).get("program") == program_key():
                return running
            console.info(f"restarting the virtual phone {chosen}: it runs an older program")
            running.stop()
        parts = _prepare(abi)
        _check_abi_kept(folder, abi)
        settings = Settings(chosen, folder, parts, memory_mib, storage_mib, _last_port(folder))
        with console.step("phone", f"starting the virtual phone {chosen}") as step:
            phone = _launch(settings)
            step.done(f"virtual phone {chosen} ({abi}) at {phone.serial}")
        return phone


def status(workspace: Path) -> list[Phone]:
    """The phones of `workspace` that run, by name."""
    folder = workspace.resolve() / ".harness" / "phones"
    if not folder.is_dir():
        return []
    found = (_find(each) for each in sorted(folder.iterdir()) if each.is_dir())
    return [phone for phone in found if phone is not None]


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What a full or read-only disk does to any step of a start is told as such."""
    try:
        yield
    except OSError as problem:
        raise files.disk_error(Path(problem.filename or folder), problem) from problem


@contextlib.contextmanager
def _made_and_locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        yield


def _prepare(abi: Abi) -> Parts:
    jdk.find()
    shell, busybox = rootfs.find_shell(), rootfs.find_busybox()
    programs = native_tools.prepare()
    jar = framework.prepare()
    java = java_runtime.prepare(abi)
    if abi is Abi.X86_64:
        return Parts(abi, programs, java, jar, busybox, shell, None, None, cpuinfo="")
    emulator = qemu.find()
    cpuinfo = kernel_facts.arm64_cpuinfo(os.cpu_count() or 1, *emulator.hardware_capabilities())
    return Parts(abi, programs, java, jar, busybox, shell, emulator.path, emulator.sysroot, cpuinfo)


def _launch(settings: Settings) -> Phone:
    """Start the daemon and wait until it is ready."""
    folder = settings.folder
    given = folder / "settings.json"
    files.write_json(given, settings.document())
    log = folder / "phone.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "harness.virtual_phone", str(given)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        phone = _read_state(folder)
        if phone is not None and phone.pid == child.pid:
            # Reaped by a thread, or a stopped phone would linger as a zombie of this process.
            _reap_later(child)
            return phone
        if child.poll() is not None:
            raise _failure(settings.name, log)
        time.sleep(0.02)
    child.kill()
    child.wait()
    raise DeviceError(
        f"the virtual phone {settings.name} did not come up",
        cause=f"it was not ready after {START_SECONDS:.0f} s",
        remedy=f"cat {log}",
    )


def _reap_later(child: subprocess.Popen[bytes]) -> None:
    import threading

    threading.Thread(target=child.wait, daemon=True, name=f"phone {child.pid}").start()


def _environment() -> dict[str, str]:
    """The daemon's environment: it imports this very harness, wherever it is started."""
    package = str(Path(errors.__file__).resolve().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _failure(name: str, log: Path) -> HarnessError:
    """What the daemon said before it ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith("FAILED "):
            said = json.loads(line.removeprefix("FAILED "))
            kind = getattr(errors, said["kind"], DeviceError)
            failure: HarnessError = kind(said["what"], cause=said["cause"], remedy=said["remedy"])
            return failure
    return DeviceError(
        f"the virtual phone {name} did not start",
        cause=lines[-1] if lines else "its process ended without a word",
        remedy=f"cat {log}",
    )


def _find(folder: Path) -> Phone | None:
    """The phone of a folder if it runs; the traces of one that died are removed."""
    phone = _read_state(folder)
    if phone is None:
        return None
    if _alive(phone):
        return phone
    (folder / STATE).unlink(missing_ok=True)
    return None


def _read_state(folder: Path) -> Phone | None:
    document = _state(folder)
    if document is None:
        return None
    return Phone(
        document["name"],
        document["serial"],
        Abi(document["abi"]),
        document["port"],
        folder,
        document["pid"],
    )


def _state(folder: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if document.get("schema") == STATE_SCHEMA else None


def _alive(phone: Phone) -> bool:
    """Does the phone's own process answer? (Its id alone may by now be another program's.)"""
    try:
        return _ask(phone.folder, {"ping": True}).get("pid") == phone.pid
    except DeviceError:
        return False


def _ask(folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    try:
        with bound_sockets.connect(folder, CONTROL, CONTROL_SECONDS) as link:
            link.sendall(json.dumps(document).encode() + b"\n")
            line = next(_lines(link), b"")
        answer: dict[str, Any] = json.loads(line)
    except (OSError, ValueError) as problem:
        raise DeviceError(
            "the virtual phone does not answer", cause=str(problem), remedy="harness phone start"
        ) from problem
    return answer


def _lines(link: socket.socket) -> Iterator[bytes]:
    with link.makefile("rb") as reader:
        yield from reader


def _check_same(running: Phone, abi: Abi, folder: Path, memory_mib: int, storage_mib: int) -> None:
    state = _state(folder) or {}
    wanted = {"abi": str(abi), "memory_mib": memory_mib, "storage_mib": storage_mib}
    for key, value in wanted.items():
        if state.get(key) != value:
            raise UsageError(
                f"the virtual phone {running.name} runs with another {key.replace('_mib', '')}",
                cause=f"it has {state.get(key)}, {value} was asked for",
                remedy="harness phone stop   # then run the same command again",
            )


def _check_abi_kept(folder: Path, abi: Abi) -> None:
    """What is installed on a phone is for its ABI; another one needs another folder."""
    kept = _last_settings(folder)
    if kept is not None and kept["parts"]["abi"] != abi and (folder / "rootfs").is_dir():
        raise UsageError(
            f"the virtual phone {folder.name} has ABI {kept['parts']['abi']}",
            cause=f"{abi} was asked for under the same name",
            remedy=f"rm -r {folder}   # or choose another name",
        )


def _last_settings(folder: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(
            (folder / "settings.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return None
    return document


def _last_port(folder: Path) -> int | None:
    """The port of the phone's last life, so that hosts find it again."""
    try:
        return int((folder / PORT).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _wait_for_end(phone: Phone, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not _alive(phone) and not _process_exists(phone.pid):
            return True
        time.sleep(0.02)
    return False


def _process_exists(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
