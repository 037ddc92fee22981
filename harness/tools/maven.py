"""Maven: builds the Kotlin modules and brings libraries from its repositories."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console, files, process
from harness.errors import MissingTool, StageFailed
from harness.tools import poms
from harness.tools.jdk import Jdk
from harness.tools.jdk import find as find_jdk
from harness.tools.pip import cache_folder

REMEDY = "sudo apt install maven   # or unpack Maven 3.8 or newer and put its bin/ on PATH"
BUILD_SECONDS = 3600.0
_MODULE = re.compile(r"\[INFO\] Building ([a-z][\w-]*) ")
_DOWNLOAD = re.compile(r"Downloading from [\w.-]+: \S*/([^/\s]+)")
_TESTS = re.compile(r"Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)\s*$")
_OFFLINE = re.compile(r"offline mode|has not been downloaded from it before", re.IGNORECASE)
_NETWORK = re.compile(
    r"Unknown host|Temporary failure in name resolution|Connection refused|Connect timed out"
    r"|Network is unreachable|Could not transfer|No route to host"
)
_BOILERPLATE = re.compile(
    r"\[Help 1\]$|^\[Help|^To see the full stack|^Re-run Maven|^For more information"
    r"|^After correcting|^mvn <args>|^Failed to execute goal|^See dump files"
)


@dataclass(frozen=True)
class Maven:
    """An installed Maven and the JDK that it runs on."""

    program: Path
    jdk: Jdk


@dataclass(frozen=True)
class KotlinJars:
    """The modules' own jars by name, and the jars of the libraries that they run with."""

    modules: Mapping[str, Path]
    libraries: tuple[Path, ...]

    @property
    def all(self) -> tuple[Path, ...]:
        """Every jar of the program, without the framework."""
        return (*self.modules.values(), *self.libraries)


def find() -> Maven:
    """Maven from MAVEN_HOME or PATH, with a JDK.

    Raises `MissingTool` where either is missing.
    """
    jdk = find_jdk()
    home = os.environ.get("MAVEN_HOME")
    program = shutil.which("mvn", path=str(Path(home) / "bin") if home else None)
    if program is None:
        where = f"MAVEN_HOME is {home}, which has no bin/mvn" if home else "mvn is not on PATH"
        raise MissingTool("no Maven found", cause=where, remedy=REMEDY)
    return Maven(Path(program), jdk)


def build_kotlin(project: Path, folder: Path, *, tests: bool = False) -> KotlinJars:
    """Compile the Kotlin modules of an Android project and return their jars.

    `folder` receives the generated POMs and everything that Maven writes; `project` is only read.
    With `tests`, each module's unit tests run as well. A second build works without a network.

    Raises `MissingTool` without Maven, a JDK, or a network that the first build needs, and
    `StageFailed` if the sources do not compile or a test fails.
    """
    options = () if tests else ("-Dmaven.test.skip=true",)
    return _build(project, folder, poms.modules_of(project), options, "Kotlin modules")


def build_suites(project: Path, folder: Path) -> tuple[KotlinJars, Mapping[str, Path]]:
    """Compile the modules, their tests, and the app that runs the tests on a device.

    Returns the jars, the tests' libraries among them, and the folder of each module's compiled
    tests. Parameters and errors are those of `build_kotlin`.
    """
    modules = poms.modules_of(project)
    jars = _build(project, folder, (*modules, poms.SUITES), ("-DskipTests",), "Kotlin tests")
    return jars, {name: folder / name / "target/test-classes" for name in modules}


def _build(
    project: Path, folder: Path, modules: tuple[str, ...], options: Iterable[str], what: str
) -> KotlinJars:
    maven = find()
    project = project.resolve()
    catalog = poms.read_catalog(project)
    if not poms.modules_of(project):
        raise StageFailed(
            f"{project} has no Kotlin modules",
            cause=f"none of {', '.join(poms.MODULES)} has src/main/kotlin",
            remedy="check that this is the folder of an Android project",
        )
    for name, text in poms.reactor(project, catalog, modules).items():
        files.write_text(folder / name, text)
    goals = ["package", "dependency:build-classpath"]
    goals += [f"-Dmdep.outputFile={folder.resolve()}/${{project.artifactId}}.classpath"]
    goals += ["-DincludeScope=runtime", "-Dmdep.regenerateFile=true", *options]
    with console.step("package", f"{what} with Maven") as step:
        _run(maven, folder, goals, step, what="the Kotlin build")
        step.done(f"{what} with Maven: {', '.join(modules)}")
    jars = {name: folder / name / "target" / f"{name}-{poms.VERSION}.jar" for name in modules}
    text = (folder / f"{modules[-1]}.classpath").read_text(encoding="utf-8")
    built = {path.resolve() for path in jars.values()}
    found = tuple(Path(entry) for entry in text.strip().split(os.pathsep) if entry)
    return KotlinJars(jars, tuple(path for path in found if path.resolve() not in built))


def resolve(project: Path, names: Iterable[str], *, stage: str = "package") -> tuple[Path, ...]:
    """The jars of libraries of the project's catalog with all that they need, as a class path.

    Names are the catalog's, such as "r8". Only the first call for the same libraries asks Maven.

    Raises `MissingTool` without Maven, a JDK, or a network that the first call needs.
    """
    catalog = poms.read_catalog(project)
    libraries = [catalog.libraries[name] for name in names]
    text = poms.resolver(libraries)
    folder = cache_folder() / "maven" / hashlib.sha256(text.encode()).hexdigest()[:16]
    answer = folder / "classpath"
    if kept := _entries(answer):
        return kept
    maven = find()
    with _lock(folder / "lock"):
        if kept := _entries(answer):
            return kept
        files.write_text(folder / "pom.xml", text)
        fresh = folder / "classpath.new"
        with console.step(stage, f"fetching {', '.join(map(str, libraries))}") as step:
            goal = "org.apache.maven.plugins:maven-dependency-plugin:"
            goal += f"{catalog.versions['mavenDependency']}:build-classpath"
            options = [f"-Dmdep.outputFile={fresh}", "-Dmdep.regenerateFile=true"]
            _run(maven, folder, [goal, *options], step, what="fetching with Maven")
        fresh.replace(answer)
    return _entries(answer)


def _entries(path: Path) -> tuple[Path, ...]:
    """A class path that was written before; nothing if there is none, or a part of it is gone."""
    if not path.is_file():
        return ()
    text = path.read_text(encoding="utf-8").strip()
    found = tuple(Path(entry) for entry in text.split(os.pathsep) if entry)
    return found if all(entry.is_file() for entry in found) else ()


def _lock(path: Path) -> Any:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _run(maven: Maven, folder: Path, words: list[str], step: console.Step, *, what: str) -> None:
    """Run Maven without the network if that is enough, else with it."""
    first = _attempt(maven, folder, ["--offline", *words], step)
    if first.code != 0 and _OFFLINE.search(first.stdout):
        # Maven's folder of what was downloaded is not made for two that write at once.
        with _lock(cache_folder() / "maven" / "download.lock"):
            first = _attempt(maven, folder, words, step)
    if first.code == 0:
        return
    if _NETWORK.search(first.stdout):
        raise MissingTool(
            f"{what} needs the network",
            cause=_errors(first.stdout),
            remedy="connect to the network and run the same command again",
        )
    raise StageFailed(
        f"{what} failed",
        cause=_errors(first.stdout) or first.stderr.strip() or "Maven printed no error",
        remedy=f"JAVA_HOME={maven.jdk.home} {maven.program} -f {folder / 'pom.xml'} package",
    )


def _attempt(maven: Maven, folder: Path, words: list[str], step: console.Step) -> process.Completed:
    base = step.text.split(" · ")[0]

    def show(line: str) -> None:
        if found := _MODULE.search(line):
            step.update(f"{base} · {found.group(1)}")
        elif found := _DOWNLOAD.search(line):
            step.update(f"{base} · downloading {found.group(1)}")
        elif found := _TESTS.search(line):
            step.update(f"{base} · {found.group(1)} tests")

    return process.run(
        [maven.program, "--batch-mode", "-f", folder / "pom.xml", *words],
        env={"JAVA_HOME": str(maven.jdk.home)},
        on_line=show,
        check=False,
        timeout=BUILD_SECONDS,
    )


def _errors(output: str) -> str:
    """The first lines in which Maven or the compiler says what is wrong, each once."""
    marks = ("[ERROR]", "[WARNING] file:") if "-Werror" in output else ("[ERROR]",)
    lines = [
        line.partition("]")[2].strip() for line in output.splitlines() if line.startswith(marks)
    ]
    told = [line for line in dict.fromkeys(lines) if line and not _BOILERPLATE.search(line)]
    return "\n         ".join(told[:12])
