"""The phone's small native programs, compiled once for the host by zig and kept by content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

from harness import console, process
from harness.errors import MissingTool
from harness.tools.pip import cache_folder

PROGRAMS = ("hold", "enter", "sockets", "client")
_SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-target", "x86_64-linux-musl", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def prepare() -> Path:
    """The folder with `hold`, `enter`, `sockets` and `client`, static x86-64 programs.

    Raises `MissingTool` where zig is not installed, `StageFailed` if it cannot compile.
    """
    folder = cache_folder() / "virtual-phone" / f"native-{_key()}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        console.step("phone", "compiling the phone's native programs") as step,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".native.") as temporary,
    ):
        for name in PROGRAMS:
            step.update(f"compiling {name}")
            argv = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, f"{name}.c", "-o"]
            output = Path(temporary) / name
            process.run([*argv, output], what=f"zig cc {name}.c", cwd=_SOURCES, timeout=600)
        _publish(Path(temporary), folder)
    return folder


def _key() -> str:
    try:
        digest = hashlib.sha256(importlib.metadata.version("ziglang").encode())
    except importlib.metadata.PackageNotFoundError as problem:
        raise MissingTool(
            "zig is not installed",
            cause="the virtual phone's native programs are compiled by it",
            remedy=f"{sys.executable} -m pip install ziglang",
        ) from problem
    digest.update(" ".join(_FLAGS).encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _publish(made: Path, folder: Path) -> None:
    """Give a finished folder its name; another process may have been first."""
    made.chmod(0o755)
    staged = made.with_suffix(".done")
    shutil.copytree(made, staged)
    try:
        os.rename(staged, folder)  # noqa: PTH104 (Path.rename would replace an empty folder too)
    except OSError:
        shutil.rmtree(staged)
        if not folder.is_dir():
            raise
