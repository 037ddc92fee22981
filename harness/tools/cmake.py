"""CMake and Ninja from their Python packages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from harness import console, process
from harness.errors import MissingTool

CONFIGURE_SECONDS = 900.0
BUILD_SECONDS = 7200.0
_STATUS = "@%f/%t@ "
_PROGRESS = re.compile(r"^@(\d+)/(\d+)@ (?:Building \S+ object (\S+)|(.*))")


@dataclass(frozen=True)
class CMake:
    """An installed CMake and the Ninja that it drives; `version` names both."""

    program: Path
    ninja: Path
    version: str


def find() -> CMake:
    """CMake and Ninja of the Python packages of these names.

    Raises `MissingTool` where one is not installed.
    """
    return CMake(
        _program("cmake"),
        _program("ninja"),
        f"{metadata.version('cmake')} with ninja {metadata.version('ninja')}",
    )


def configure(
    cmake: CMake, source: Path, folder: Path, settings: Mapping[str, str | Sequence[str]]
) -> None:
    """Make the build in `folder` ready; `settings` are cache variables, sequences CMake lists.

    Raises `StageFailed` with the end of CMake's output if it refuses.
    """
    argv: list[str | Path] = [cmake.program, "-G", "Ninja", "-S", source, "-B", folder]
    argv.append(f"-DCMAKE_MAKE_PROGRAM={cmake.ninja}")
    for name, value in settings.items():
        text = value if isinstance(value, str) else ";".join(value)
        argv.append(f"-D{name}={text}")
    process.run(argv, what="CMake", timeout=CONFIGURE_SECONDS)


def build(
    cmake: CMake, folder: Path, step: console.Step, *, jobs: int, targets: Sequence[str] = ()
) -> None:
    """Build `targets` (else everything), telling `step` each file that is done.

    What an earlier, interrupted call has built is not built again.

    Raises `StageFailed` with the compiler's last lines if a file does not compile.
    """
    base = step.text.split(" · ")[0]

    def show(line: str) -> None:
        if found := _PROGRESS.match(line):
            done, total, compiled, other = found.groups()
            name = Path(compiled).name.removesuffix(".o") if compiled else other.split()[-1]
            step.update(f"{base} · {done} of {total}: {name}")

    process.run(
        [cmake.ninja, "-C", folder, "-j", str(jobs), *targets],
        env={"NINJA_STATUS": _STATUS},
        on_line=show,
        what="the native build",
        timeout=BUILD_SECONDS,
    )


def _program(package: str) -> Path:
    """The program of the same name that a Python package installed."""
    try:
        installed = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.name == package and file.parent.name == "bin":
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    raise MissingTool(
        f"no {package} found",
        cause=f"the Python package {package} is not installed",
        remedy=f"pip install {package}",
    )
