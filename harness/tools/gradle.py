"""Gradle with an Android SDK: builds the rendered project as Android Studio would."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import console, process
from harness.errors import StageFailed

# What the Android Gradle plugin of the template's catalog asks for.
OLDEST = (8, 13)
SECONDS = 3600.0
_JAR = re.compile(r"gradle-[a-z-]+-(\d+(?:\.\d+)+)\.jar")
_TASK = re.compile(r"> Task (\S+)")


@dataclass(frozen=True)
class Gradle:
    """An installed Gradle and the Android SDK that it builds with."""

    program: Path
    version: str
    sdk: Path

    def assemble(self, project: Path, step: console.Step) -> Path:
        """Build the release APK of a rendered project; its path.

        Raises `StageFailed` with what Gradle says.
        """
        argv: list[str | Path] = [self.program, "--console=plain", "-p", project]
        argv.append(":app:assembleRelease")

        def show(line: str) -> None:
            if found := _TASK.match(line):
                step.update(f"{step.text.split(' · ')[0]} · {found.group(1)}")

        environment = {"ANDROID_HOME": str(self.sdk)}
        process.run(argv, what="Gradle", env=environment, on_line=show, timeout=SECONDS)
        found = sorted((project / "app/build/outputs/apk/release").glob("*.apk"))
        if len(found) != 1:
            raise StageFailed(
                f"Gradle made {len(found)} APKs",
                cause="one was expected in app/build/outputs/apk/release",
                remedy="run the same command again with -v",
            )
        return found[0]


def find(compile_sdk: int) -> Gradle | None:
    """Gradle and an SDK that has this platform; None (and a line in the log) where one is missing.

    No program is started: the version stands in the names of Gradle's own jars.
    """
    named = os.environ.get("ANDROID_HOME") or os.environ.get("ANDROID_SDK_ROOT")
    program = shutil.which("gradle")
    version = _version(Path(program)) if program else "0.0"
    if not named or not (Path(named) / "platforms" / f"android-{compile_sdk}").is_dir():
        reason = f"ANDROID_HOME names no SDK with platforms/android-{compile_sdk}"
    elif program is None:
        reason = "there is no gradle on PATH"
    elif tuple(map(int, version.split("."))) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        reason = f"{program} is version {version}, {wanted} or newer is needed"
    else:
        return Gradle(Path(program), version, Path(named))
    console.detail(f"the APK is made without Gradle: {reason}")
    return None


def _version(program: Path) -> str:
    libraries = program.resolve().parent.parent / "lib"
    names = sorted(path.name for path in libraries.glob("gradle-*.jar"))
    found = (_JAR.fullmatch(name) for name in names)
    return next((match.group(1) for match in found if match), "0.0")
