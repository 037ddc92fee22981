"""The dex files of an APK as JVM bytecode, translated once and kept by their content."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.tools import jdk, maven
from harness.tools.pip import cache_folder

SECONDS = 600.0
_PROGRAM = Path(__file__).parent / "java" / "TranslateDex.java"
_DEX = re.compile(r"classes\d*\.dex")


@dataclass(frozen=True)
class Translator:
    """dex2jar and the Java that runs it; `framework` has the classes that apps extend."""

    java: Path
    class_path: tuple[Path, ...]
    framework: Path

    def translate(self, apk: Path) -> Path:
        """The jar for an APK's dex files, from the cache if they were translated before.

        Raises `StageFailed` if dex2jar cannot read them, OSError or `zipfile.BadZipFile` if the
        APK cannot be read.
        """
        target = self._kept(apk)
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".dex.") as folder:
            made = Path(folder) / "app.jar"
            path = os.pathsep.join(str(jar) for jar in self.class_path)
            # One run is too short to pay back what the optimizing compiler costs.
            argv: list[str | Path] = [self.java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
            argv += ["-cp", path, _PROGRAM, apk, self.framework, made]
            process.run(argv, what="dex2jar", timeout=SECONDS)
            made.replace(target)
        return target

    def _kept(self, apk: Path) -> Path:
        digest = hashlib.sha256(_PROGRAM.read_bytes())
        digest.update("\n".join(jar.name for jar in self.class_path).encode())
        digest.update(self.framework.name.encode())
        with zipfile.ZipFile(apk) as archive:
            for name in sorted(filter(_DEX.fullmatch, archive.namelist())):
                digest.update(name.encode())
                digest.update(hashlib.sha256(archive.read(name)).digest())
        return cache_folder() / "virtual-phone" / "dex" / f"{digest.hexdigest()[:32]}.jar"


def find(template: Path, framework: Path) -> Translator:
    """dex2jar of the version in the template's catalog, fetched by Maven at the first call.

    Raises `MissingTool` without a JDK, or without the Maven or network that the first call needs.
    """
    jars = maven.resolve(template, ["dex2jar"], stage="phone")
    return Translator(jdk.find().java, jars, framework)
