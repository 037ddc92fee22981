"""The phone's small native programs, compiled once for the host by zig and kept by content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from harness import console, process
from harness.tools import zig
from harness.tools.pip import cache_folder
from harness.tools.zig import Zig

PROGRAMS = ("hold", "enter", "sockets", "client")
_SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-target", "x86_64-linux-musl", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror")


def prepare() -> Path:
    """The folder with `hold`, `enter`, `sockets` and `client`, static x86-64 programs.

    Raises `MissingTool` where zig is not installed, `StageFailed` if it cannot compile.
    """
    compiler = zig.find()
    folder = cache_folder() / "virtual-phone" / f"native-{_key(compiler)}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        console.step("phone", "compiling the phone's native programs") as step,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".native.") as temporary,
    ):
        made = Path(temporary) / "made"
        made.mkdir()
        for name in PROGRAMS:
            step.update(f"compiling {name}")
            argv: list[str | Path] = [
                compiler.program,
                "cc",
                *_FLAGS,
                f"{name}.c",
                "-o",
                made / name,
            ]
            process.run(argv, what=f"zig cc {name}.c", cwd=_SOURCES, timeout=600)
        _publish(made, folder)
    return folder


def _key(compiler: Zig) -> str:
    digest = hashlib.sha256(compiler.version.encode())
    digest.update(" ".join(_FLAGS).encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _publish(made: Path, folder: Path) -> None:
    """Give a finished folder its name; another process may have been first."""
    try:
        os.rename(made, folder)  # noqa: PTH104 (Path.rename would replace an empty folder too)
    except OSError:
        if not folder.is_dir():
            raise
