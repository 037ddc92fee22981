"""The phone's root folder, and what of the host is mounted into it (read-only)."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingTool
from harness.types import Abi
from harness.virtual_phone import kernel_facts
from harness.virtual_phone.sandbox import Mount

_FOLDERS = (
    "apex/com.android.art",
    "data/app",
    "data/data",
    "data/local/tmp",
    "data/media/0/Android/data",
    "data/media/0/Android/media",
    "data/media/0/Download",
    "data/misc",
    "data/system",
    "data/user",
    "dev/pts",
    "dev/shm",
    "dev/socket",
    "lib",
    "lib64",
    "mnt/nothing",
    "mnt/proc",
    "proc",
    "product/bin",
    "storage/emulated/0",
    "system/bin",
    "system/etc",
    "system/framework",
    "system/lib64",
    "sys",
    "vendor/bin",
    "vendor/lib64",
)
_LINKS = {
    "bin": "/system/bin",
    "etc": "/system/etc",
    "sdcard": "/storage/emulated/0",
    "data/user/0": "/data/data",
    "dev/ptmx": "pts/ptmx",
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_PASSWD = (
    "root:x:0:0::/:/system/bin/sh\nsystem:x:1000:1000::/:\nshell:x:2000:2000::/:/system/bin/sh\n"
)
_GROUP = "root:x:0:\nsystem:x:1000:\nshell:x:2000:\n"

# busybox has tools that a phone's toybox lacks, and some of them would leave the sandbox's rules.
_NOT_LINKED = (
    "ash sh getty init login su sulogin passwd run-init switch_root chroot insmod modprobe rmmod "
    "svc svok start-stop-daemon telnetd httpd crond crontab udhcpd udhcpc dpkg dpkg-deb rpm"
)
_ARM64_RULE = (
    r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    r":/system/bin/qemu-aarch64:F"
)
BUSYBOX = "/system/bin/busybox"
QEMU = "/system/bin/qemu-aarch64"
JAVA = "/apex/com.android.art/bin/java"
FRAMEWORK = "/system/framework/framework.jar"


@dataclass(frozen=True)
class Parts:
    """What of the host a phone is made of."""

    abi: Abi
    programs: Path
    java: Path
    framework: Path
    busybox: Path
    shell: Path
    qemu: Path | None
    sysroot: Path | None
    cpuinfo: str
    """The text of /proc/cpuinfo; "" leaves the host's, which an x86_64 phone shares."""

    def document(self) -> dict[str, str]:
        """As JSON holds it."""
        return {name: str(value or "") for name, value in vars(self).items()}

    @classmethod
    def from_document(cls, document: dict[str, str]) -> Parts:
        """The parts that `document` described."""
        paths = {
            name: Path(value) if value else None
            for name, value in document.items()
            if name not in ("abi", "cpuinfo")
        }
        return cls(abi=Abi(document["abi"]), cpuinfo=document["cpuinfo"], **paths)  # type: ignore[arg-type]


def create(root: Path, parts: Parts, commands: Iterable[str]) -> None:
    """Make the root folder, or bring an older one up to date; /data is kept."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        _link(root / name, target)
    for name in _DEVICES:
        (root / "dev" / name).touch()
    (root / "system/etc/passwd").write_text(_PASSWD, encoding="ascii")
    (root / "system/etc/group").write_text(_GROUP, encoding="ascii")
    (root / "data/local/tmp").chmod(0o771)
    for name in ("cpuinfo", "meminfo", "boot_id"):
        (root / "mnt/proc" / name).touch()
    if parts.cpuinfo:
        (root / "mnt/proc/cpuinfo").write_text(parts.cpuinfo, encoding="ascii")
    shutil.rmtree(root / "sys", ignore_errors=True)
    kernel_facts.write_sys(root / "sys", os.cpu_count() or 1)
    _fill_bin(root / "system/bin", parts, commands)
    for library in [*map(str, _host_libraries()), FRAMEWORK]:
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    if parts.sysroot is not None:
        (root / "lib/aarch64-linux-gnu").mkdir(exist_ok=True)
        (root / "lib/ld-linux-aarch64.so.1").touch()


def write_properties(root: Path, properties: Mapping[str, str]) -> None:
    """Leave the properties of this boot where apps read them (android.os.Build)."""
    lines = "".join(f"{name}={value}\n" for name, value in sorted(properties.items()))
    (root / "system/build.prop").write_text(lines, encoding="utf-8")


def new_boot_id(root: Path) -> None:
    """A reboot gives /proc/sys/kernel/random/boot_id a new value."""
    (root / "mnt/proc/boot_id").write_text(f"{uuid.uuid4()}\n", encoding="ascii")


def mounts(root: Path, parts: Parts) -> list[Mount]:
    """The mount plan over a root folder that `create` made."""
    plan = [Mount("bind", f"/dev/{name}", f"/dev/{name}", "rw") for name in _DEVICES]
    plan += [
        Mount("rbind", "/dev/pts", "/dev/pts"),
        Mount("tmpfs", "-", "/dev/shm", "size=256m"),
        # What is hidden from a process is covered by this folder, which nobody may look into.
        Mount("tmpfs", "-", "/mnt/nothing", "size=4k,mode=000"),
        Mount("proc", "-", "/proc"),
        Mount("bind", str(parts.java), "/apex/com.android.art", "ro"),
        Mount("bind", str(parts.framework), FRAMEWORK, "ro"),
    ]
    plan += [Mount("bind", str(path), str(path), "ro") for path in _host_libraries()]
    if parts.sysroot is not None:
        libraries = parts.sysroot / "lib"
        loader = libraries / "ld-linux-aarch64.so.1"
        plan.append(Mount("bind", str(libraries), "/lib/aarch64-linux-gnu", "ro"))
        plan.append(Mount("bind", str(loader.resolve()), "/lib/ld-linux-aarch64.so.1", "ro"))
    facts = root / "mnt/proc"
    if parts.cpuinfo:
        plan.append(Mount("bind", str(facts / "cpuinfo"), "/proc/cpuinfo", "ro"))
    plan.append(Mount("bind", str(facts / "meminfo"), "/proc/meminfo", "ro"))
    boot_id = "/proc/sys/kernel/random/boot_id"
    plan.append(Mount("bind", str(facts / "boot_id"), boot_id, "ro"))
    # Everything but /data is read-only from here on; shared storage lies on /data.
    plan += [
        Mount("bind", str(root / "data"), "/data", "rw"),
        Mount("bind", str(root / "data/media/0"), "/storage/emulated/0", "rw"),
        Mount("remount", "-", "/", "ro"),
    ]
    if parts.qemu is not None:
        plan.append(Mount("binfmt", "-", _ARM64_RULE))
    return plan


def find_shell() -> Path:
    """The host's dash: small, and stricter than a phone's mksh.

    Raises `MissingTool`.
    """
    path = shutil.which("dash")
    if path is None:
        raise MissingTool(
            "no dash found", cause="it is the virtual phone's shell", remedy="sudo apt install dash"
        )
    return Path(path).resolve()


def find_busybox() -> Path:
    """A static busybox, the phone's toolbox. Raises `MissingTool`."""
    path = shutil.which("busybox")
    if path is None or not _is_static(Path(path)):
        raise MissingTool(
            "no static busybox found",
            cause="it is not on PATH" if path is None else f"{path} needs shared libraries",
            remedy="sudo apt install busybox-static",
        )
    return Path(path).resolve()


def _is_static(program: Path) -> bool:
    """Has an ELF program no interpreter?"""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with program.open("rb") as file:
            kinds = {segment["p_type"] for segment in ELFFile(file).iter_segments()}
    except ELFError:
        return False
    return "PT_INTERP" not in kinds


def _host_libraries() -> list[Path]:
    """glibc of the host, as this very process uses it: the loader and what java and dash need."""
    mapped = {
        line.split(maxsplit=5)[5].strip()
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        if len(line.split(maxsplit=5)) == 6
    }
    found = [Path(path) for path in mapped if Path(path).name == "libc.so.6"]
    if not found:
        raise MissingTool(
            "no glibc found",
            cause="this Python does not use libc.so.6",
            remedy="use the Python of Debian or Ubuntu",
        )
    folder = found[0].parent
    names = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")
    # The loader's folder is its default search path, whatever the distribution calls it.
    folder = Path("/lib") / folder.name if folder.name.endswith("-gnu") else folder
    return [Path("/lib64/ld-linux-x86-64.so.2"), *(folder / name for name in names)]


def _fill_bin(folder: Path, parts: Parts, commands: Iterable[str]) -> None:
    for old in folder.iterdir():
        old.unlink()
    shutil.copy2(parts.busybox, folder / "busybox")
    shutil.copy2(parts.shell, folder / "sh")
    shutil.copy2(parts.programs / "client", folder / "cmd")
    if parts.qemu is not None:
        shutil.copy2(parts.qemu, folder / "qemu-aarch64")
    own = set(commands)
    for name in own - {"cmd"}:
        _link(folder / name, "cmd")
    for name in _applets(parts.busybox) - own - set(_NOT_LINKED.split()):
        _link(folder / name, "busybox")


def _applets(busybox: Path) -> set[str]:
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if "/" not in name} - {"busybox"}


def _link(path: Path, target: str) -> None:
    if path.is_symlink():
        if str(path.readlink()) == target:
            return
        path.unlink()
    path.symlink_to(target)
