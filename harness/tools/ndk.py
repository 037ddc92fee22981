"""The Android NDK, which compiles for real phones."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingTool

VARIABLES = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK")
SDK_VARIABLES = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
OLDEST = 25
REMEDY = (
    'sdkmanager "ndk;27.2.12479018"   # then set ANDROID_NDK_HOME to its folder; '
    "a virtual phone needs no NDK"
)
_TOOLCHAIN = Path("build/cmake/android.toolchain.cmake")
_REVISION = re.compile(r"^Pkg\.Revision\s*=\s*([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Ndk:
    """An installed NDK; `version` is its revision, such as 27.2.12479018."""

    path: Path
    version: str

    @property
    def toolchain(self) -> Path:
        """The file that tells CMake how to compile for Android."""
        return self.path / _TOOLCHAIN


def find() -> Ndk:
    """The NDK of ANDROID_NDK_HOME, ANDROID_NDK_ROOT or ANDROID_NDK, else the newest in the SDK.

    A variable that is set but names no NDK is an error: it is never silently passed over.

    Raises `MissingTool` where there is none, or where it is older than release 25.
    """
    for name in VARIABLES:
        if value := os.environ.get(name):
            return _checked(Path(value), f"{name} is {value}")
    for name in SDK_VARIABLES:
        if value := os.environ.get(name):
            found = [path for path in (Path(value) / "ndk").glob("*") if _version(path)]
            if found:
                return _checked(max(found, key=_order), f"{name} is {value}")
    cause = f"{', '.join(VARIABLES)} are not set and there is none in the Android SDK"
    raise MissingTool("no Android NDK found", cause=cause, remedy=REMEDY)


def _checked(path: Path, why: str) -> Ndk:
    version = _version(path)
    if version is None:
        raise MissingTool(
            "no Android NDK found",
            cause=f"{why}, where there is no source.properties with {_TOOLCHAIN}",
            remedy=REMEDY,
        )
    if int(version.split(".")[0]) < OLDEST:
        raise MissingTool(
            f"the Android NDK in {path} is too old",
            cause=f"it is release {version}, the build needs {OLDEST} or newer",
            remedy=REMEDY,
        )
    return Ndk(path, version)


def _version(path: Path) -> str | None:
    if not (path / _TOOLCHAIN).is_file():
        return None
    try:
        text = (path / "source.properties").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _REVISION.search(text)
    return found.group(1) if found else None


def _order(path: Path) -> list[int]:
    return [int(part) for part in (_version(path) or "0").split(".") if part]
