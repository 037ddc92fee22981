"""The phone's framework: the android.* classes of `framework/`, compiled once by javac."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

from harness import console, process
from harness.tools import jdk
from harness.tools.pip import cache_folder

SOURCES = Path(__file__).parent / "framework"
RELEASE = "17"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def prepare() -> Path:
    """The jar with the framework's classes.

    Raises `MissingTool` without a JDK, `StageFailed` if the sources do not compile.
    """
    sources = sorted(SOURCES.rglob("*.java"))
    found = jdk.find()
    digest = hashlib.sha256(f"{RELEASE} {found.version}".encode())
    for source in sources:
        digest.update(str(source.relative_to(SOURCES)).encode() + source.read_bytes())
    folder = cache_folder() / "virtual-phone"
    jar = folder / f"framework-{digest.hexdigest()[:16]}.jar"
    if jar.is_file():
        return jar
    folder.mkdir(parents=True, exist_ok=True)
    with (
        console.step("phone", "compiling the phone's framework"),
        tempfile.TemporaryDirectory(dir=folder, prefix=".framework.") as temporary,
    ):
        classes = Path(temporary) / "classes"
        argv: list[str | Path] = [
            found.javac,
            "--release",
            RELEASE,
            "-nowarn",
            "-encoding",
            "UTF-8",
        ]
        argv += ["-Xlint:-options", "-proc:none", "-d", classes]
        process.run([*argv, *sources], what="javac (framework)", timeout=300)
        made = Path(temporary) / "framework.jar"
        _pack(classes, made)
        made.replace(jar)
    return jar


def _pack(classes: Path, jar: Path) -> None:
    """A jar whose bytes depend on the classes only."""
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(classes.rglob("*.class")):
            entry = zipfile.ZipInfo(path.relative_to(classes).as_posix(), _EPOCH)
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
