"""A Java development kit, found in JAVA_HOME or on PATH."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.errors import HarnessError, MissingTool

OLDEST = 17
REMEDY = "sudo apt install openjdk-17-jdk-headless   # or set JAVA_HOME to a JDK 17 or newer"
_VERSION = re.compile(r'(?:version|JAVA_VERSION=)\s*"(?:1\.)?(\d+)')


@dataclass(frozen=True)
class Jdk:
    """An installed JDK; `version` is its feature release, such as 17."""

    home: Path
    version: int

    @property
    def java(self) -> Path:
        """The program that runs bytecode."""
        return self.home / "bin" / "java"

    @property
    def javac(self) -> Path:
        """The compiler for Java sources."""
        return self.home / "bin" / "javac"


def find() -> Jdk:
    """The JDK of JAVA_HOME, else the one whose `javac` is on PATH.

    Raises `MissingTool` where there is none, where it is a runtime without a compiler, or where
    it is older than 17.
    """
    named = os.environ.get("JAVA_HOME")
    if named:
        home = Path(named)
        if not (home / "bin" / "javac").is_file():
            raise MissingTool(
                "no JDK found",
                cause=f"JAVA_HOME is {home}, which has no bin/javac",
                remedy=REMEDY,
            )
    else:
        on_path = shutil.which("javac")
        if on_path is None:
            cause = "there is no javac on PATH and JAVA_HOME is not set"
            if shutil.which("java") is not None:
                cause += " (the java on PATH is a runtime without a compiler)"
            raise MissingTool("no JDK found", cause=cause, remedy=REMEDY)
        home = Path(on_path).resolve().parent.parent
    version = _version(home)
    if version < OLDEST:
        raise MissingTool(
            f"the JDK in {home} is too old",
            cause=f"it is version {version}, the build needs {OLDEST} or newer",
            remedy=REMEDY,
        )
    return Jdk(home, version)


def _version(home: Path) -> int:
    release = home / "release"
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    found = _VERSION.search(text)
    if found is None:
        try:
            answer = process.run([home / "bin" / "java", "-version"], timeout=60)
        except HarnessError as failure:
            raise MissingTool(
                f"the JDK in {home} does not run", cause=failure.cause, remedy=REMEDY
            ) from failure
        found = _VERSION.search(answer.stderr + answer.stdout)
    if found is None:
        raise MissingTool(
            f"the JDK in {home} does not say its version",
            cause="neither its release file nor java -version names one",
            remedy=REMEDY,
        )
    return int(found.group(1))
