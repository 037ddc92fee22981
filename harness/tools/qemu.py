"""qemu-user: runs arm64 programs on this machine, with the C library that Debian has for them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.errors import HarnessError, MissingTool

PROGRAM = "qemu-aarch64-static"
SYSROOT = Path("/usr/aarch64-linux-gnu")
LOADER = "lib/ld-linux-aarch64.so.1"
OLDEST = (7, 0)
REMEDY = "sudo apt install qemu-user-static libc6-arm64-cross   # or use --abi x86_64"

_VERSION = re.compile(r"qemu-aarch64 version (\d+)\.(\d+)\.?(\d*)")


@dataclass(frozen=True)
class Qemu:
    """A static qemu-aarch64 and a folder whose lib/ has glibc for arm64."""

    path: Path
    sysroot: Path
    version: str

    def argv(self) -> list[str]:
        """The words before an arm64 program's command line on this machine."""
        return [str(self.path), "-L", str(self.sysroot)]

    def hardware_capabilities(self) -> tuple[int, int]:
        """AT_HWCAP and AT_HWCAP2 of the processor that qemu emulates.

        glibc's loader prints its auxiliary vector when LD_SHOW_AUXV is set.
        """
        loader = self.sysroot / LOADER
        argv: list[str | Path] = [*self.argv(), loader, "--list", loader]
        done = process.run(argv, env={"LD_SHOW_AUXV": "1"}, check=False, timeout=30)
        return _auxiliary(done.stdout, "AT_HWCAP"), _auxiliary(done.stdout, "AT_HWCAP2")


def find() -> Qemu:
    """qemu-user for arm64 with its C library.

    Raises `MissingTool` where either is missing or qemu is older than 7.0.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise MissingTool(
            "no qemu-user for arm64 found", cause=f"{PROGRAM} is not on PATH", remedy=REMEDY
        )
    if not (SYSROOT / LOADER).exists():
        raise MissingTool(
            "no C library for arm64 found", cause=f"{SYSROOT / LOADER} is missing", remedy=REMEDY
        )
    try:
        text = process.run([program, "--version"], what=PROGRAM, timeout=30).stdout
    except HarnessError as failure:
        raise MissingTool(
            f"{program} does not run", cause=failure.cause, remedy=REMEDY
        ) from failure
    version = read_version(text)
    if version is None or version < OLDEST:
        raise MissingTool(
            "qemu-user for arm64 is too old",
            cause=f"{program} says {text.splitlines()[0] if text else 'nothing'!r}; "
            f"{OLDEST[0]}.{OLDEST[1]} is the oldest that will do",
            remedy=REMEDY,
        )
    return Qemu(Path(program), SYSROOT, ".".join(map(str, version)))


def read_version(text: str) -> tuple[int, ...] | None:
    """The version that `qemu-aarch64-static --version` prints, None if it is none."""
    found = _VERSION.search(text)
    return tuple(int(part) for part in found.groups() if part) if found else None


def _auxiliary(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(?:0x)?([0-9a-f]+)", text, re.MULTILINE)
    return int(found.group(1), 16) if found else 0
