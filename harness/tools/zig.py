"""Zig, as the C and C++ compiler for Linux targets: it brings every C library's headers along."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from harness.errors import MissingTool
from harness.types import Abi

# The oldest C library that the result runs with: that of Debian 10 and RHEL 8.
GLIBC = "2.28"


@dataclass(frozen=True)
class Zig:
    """An installed Zig."""

    program: Path
    version: str

    def compiler(self, language: str, abi: Abi) -> list[str]:
        """The command that compiles `language` ("c" or "c++") for Linux with glibc on `abi`."""
        words = {"c": "cc", "c++": "c++"}
        return [str(self.program), words[language], "-target", triple(abi)]


def triple(abi: Abi) -> str:
    """Zig's name of Linux with glibc on `abi`."""
    return f"{abi.arch}-linux-gnu.{GLIBC}"


def find() -> Zig:
    """The Zig of the Python package `ziglang`.

    Raises `MissingTool` where it is not installed.
    """
    spec = importlib.util.find_spec("ziglang")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or not (folder / "zig").is_file():
        raise MissingTool(
            "no Zig found",
            cause="the Python package ziglang is not installed",
            remedy="pip install ziglang",
        )
    return Zig(folder / "zig", metadata.version("ziglang"))
