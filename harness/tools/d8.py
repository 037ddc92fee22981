"""D8: translates JVM bytecode into dex, the bytecode of Android."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.tools import jdk, maven

SECONDS = 1800.0
_MAIN = "com.android.tools.r8.D8"


@dataclass(frozen=True)
class D8:
    """The R8 jar, which D8 is part of, and the Java that runs it."""

    jdk: jdk.Jdk
    jar: Path

    def dex(
        self,
        programs: Sequence[Path],
        folder: Path,
        *,
        library: Path,
        classpath: Sequence[Path] = (),
        min_sdk: int,
    ) -> tuple[Path, ...]:
        """Translate the classes of `programs` into dex files in `folder`; their paths in order.

        `library` is the framework and `classpath` what the programs use but is translated
        elsewhere; neither gets into the result. The same classes give the same bytes.

        Raises `StageFailed` with what D8 does not accept.
        """
        argv: list[str | Path] = [self.jdk.java, "-Xmx2g", "-cp", self.jar, _MAIN, "--release"]
        argv += ["--min-api", str(min_sdk), "--lib", library, "--output", folder]
        for path in classpath:
            argv += ["--classpath", path]
        process.run([*argv, *programs], what="D8", timeout=SECONDS)
        return dex_files(folder)


def dex_files(folder: Path) -> tuple[Path, ...]:
    """The dex files that D8 wrote, in the order of their numbers."""
    found = folder.glob("classes*.dex")
    return tuple(sorted(found, key=lambda path: (len(path.name), path.name)))


def find(template: Path) -> D8:
    """D8 of the version in the template's catalog, fetched by Maven at the first call.

    Raises `MissingTool` without a JDK, or without the Maven or network that the first call needs.
    """
    return D8(jdk.find(), maven.resolve(template, ["r8"])[0])
