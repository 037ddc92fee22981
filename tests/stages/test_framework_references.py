"""What the APK uses of Android exists in the oldest Android that it installs on.

A JVM, and a virtual phone with it, has classes and methods that Android 8 lacks, and would hide a
gap. R8's TraceReferences names everything that the dex files use and do not define. android.* is
looked up in the real framework of Android 8. Its core library (java.*) is not part of that jar;
it is looked up in the signature that Animal Sniffer's users made of the SDK of API level 26.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from harness import process, resources
from harness.stages.package.direct import compile_kotlin
from harness.tools import apk_writer, d8, dex, jdk, maven, poms
from harness.tools.pip import cache_folder
from harness.types import Libc, Project, SignedApk

pytestmark = pytest.mark.skipif(
    shutil.which("mvn") is None or shutil.which("javac") is None, reason="needs a JDK and Maven"
)
TEMPLATE = resources.path("android-template")
MEMBERS = Path(__file__).parent / "java/Members.java"
MISSING = re.compile(
    r"Missing (class|field|method) (.+?) \(referenced from: (.*)\)\]?$", re.MULTILINE
)
PRIMITIVES = {
    "void": "V",
    "boolean": "Z",
    "byte": "B",
    "char": "C",
    "short": "S",
    "int": "I",
    "long": "J",
    "float": "F",
    "double": "D",
}
# Gaps that no phone falls into, by the beginning of what is missing.
HARMLESS = (
    # Coroutines' debug agent, which a JVM loads with -javaagent and a phone never.
    "java/lang/instrument/",
    "sun/misc/Signal",
    # Coroutines take it where there is no android.os.Build, serialization where the class exists.
    "java/lang/ClassValue ",
    "kotlinx/coroutines/internal/ClassValueCtorCache$cache$1 get(Ljava/lang/Class;)",
    "kotlinx/serialization/internal/ClassValueReferences get(Ljava/lang/Class;)",
)


@dataclass(frozen=True)
class Class:
    """A class of the framework or the app, as far as looking up members needs it."""

    parents: tuple[str, ...]
    members: frozenset[str]


@dataclass(frozen=True)
class Reference:
    """Something that a dex file uses and does not define; `member` is empty for a class."""

    holder: str
    member: str
    users: str


def trace(dex_files: Sequence[Path]) -> set[Reference]:
    """What the dex files use beyond themselves and the real framework's own classes."""
    framework = maven.resolve(TEMPLATE, ["android-all-min"])[0]
    tool = d8.find(TEMPLATE)
    argv: list[str | Path] = [tool.jdk.java, "-Xmx2g", "-cp", tool.jar]
    argv += ["com.android.tools.r8.tracereferences.TraceReferences", "--check", "--lib", framework]
    for path in dex_files:
        argv += ["--source", path]
    done = process.run(argv, check=False)
    lines = MISSING.findall(done.stderr)
    assert len(lines) == done.stderr.count("Missing "), "a line was not understood"
    # The tool says everything again for each exception that carries it.
    return {_reference(*line) for line in lines}


def _reference(kind: str, text: str, users: str) -> Reference:
    if kind == "class":
        return Reference(text.replace(".", "/"), "", users)
    result, name = text.split(" ", 1)
    if kind == "field":
        holder, field = name.rsplit(".", 1)
        return Reference(holder.replace(".", "/"), f"{field}#{_descriptor(result)}", users)
    name, arguments = name.removesuffix(")").split("(")
    holder, method = name.rsplit(".", 1)
    types = "".join(_descriptor(each) for each in arguments.split(", ") if each)
    return Reference(holder.replace(".", "/"), f"{method}({types}){_descriptor(result)}", users)


def _descriptor(name: str) -> str:
    if name.endswith("[]"):
        return "[" + _descriptor(name.removesuffix("[]"))
    return PRIMITIVES.get(name) or f"L{name.replace('.', '/')};"


@cache
def signature() -> Path:
    """The signature of API level 26, fetched once."""
    catalog = poms.read_catalog(TEMPLATE)
    library = catalog.libraries["android-signature-min"]
    folder = cache_folder() / "signatures" / library.version
    path = folder / f"{library.artifact}-{library.version}.signature"
    if not path.is_file():
        plugin = f"maven-dependency-plugin:{catalog.versions['mavenDependency']}:copy"
        argv: list[str | Path] = [maven.find().program, "-q", "--batch-mode"]
        argv += [f"org.apache.maven.plugins:{plugin}", f"-Dartifact={library}:signature"]
        process.run([*argv, f"-DoutputDirectory={folder}"])
    return path


def classes(jars: Sequence[Path]) -> Mapping[str, Class]:
    """The classes of the framework at API level 26 and those of the jars."""
    path = ":".join(map(str, maven.resolve(TEMPLATE, ["animal-sniffer", "asm"])))
    done = process.run([jdk.find().java, "-cp", path, MEMBERS, signature(), *jars])
    found = {}
    for line in done.stdout.splitlines():
        name, parent, interfaces, members = line.split("\t")
        parents = tuple(each for each in (parent, *interfaces.split(",")) if each)
        found[name] = Class(parents, frozenset(members.split(" ")))
    return found


def gaps(
    references: Iterable[Reference], known: Mapping[str, Class], defined: frozenset[str]
) -> Iterator[str]:
    """The references that lead to nothing at API level 26."""
    for each in references:
        holder = "java/lang/Object" if each.holder.endswith("[]") else each.holder
        if holder not in known and holder.replace("/", ".") in defined:
            continue  # D8 made this class, and knows what it made
        if not _exists(holder, each.member, known):
            yield f"{holder} {each.member}, used by {each.users}"


def _exists(holder: str, member: str, known: Mapping[str, Class]) -> bool:
    found = known.get(holder)
    if found is None or not member:
        return found is not None
    if member in found.members:
        return True
    # Interfaces have Object's methods too.
    parents = found.parents or (() if holder == "java/lang/Object" else ("java/lang/Object",))
    return any(_exists(parent, member, known) for parent in parents)


def _extract(apk: Path, folder: Path) -> list[Path]:
    paths = []
    for entry in apk_writer.entries_of(apk):
        if entry.name.endswith(".dex"):
            path = folder / entry.name
            path.write_bytes(entry.content)
            paths.append(path)
    return paths


def test_everything_that_the_apk_uses_exists_at_min_sdk(
    projects: dict[Libc, Project], apks: dict[Libc, SignedApk], workspace: Path, tmp_path: Path
) -> None:
    jars = compile_kotlin(projects[Libc.GLIBC].path, workspace)
    dex_files = _extract(apks[Libc.GLIBC].path, tmp_path)
    references = trace(dex_files)
    assert len(references) > 1000
    known = classes([*jars.own, *jars.libraries])
    defined = frozenset().union(*(dex.classes(path) for path in dex_files))
    found = [gap for gap in gaps(references, known, defined) if not gap.startswith(HARMLESS)]
    assert found == []


NEWER = """
public class App extends java.io.ByteArrayInputStream {
    App() {
        super(new byte[1]);
    }

    static void old(android.app.Activity activity) {
        activity.setTitleColor(3);
        new App().toString();
        java.util.List.of(1, 2);
        new int[1].clone();
    }

    static void inJava() {
        new java.util.concurrent.SubmissionPublisher<String>();
    }

    static void throughTheAppsOwnClass(App app) {
        app.readNBytes(new byte[1], 0, 1);
    }

    static void inAndroid(android.app.Activity activity) {
        activity.setTranslucent(true);
    }
}
"""


def test_uses_of_something_newer_are_found_wherever_they_are(tmp_path: Path) -> None:
    source = tmp_path / "App.java"
    source.write_text(NEWER)
    framework = maven.resolve(TEMPLATE, ["android-all"])[0]
    process.run([jdk.find().javac, "-cp", framework, "-d", tmp_path / "classes", source])
    jar = tmp_path / "app.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.write(tmp_path / "classes/App.class", "App.class")
    made = d8.find(TEMPLATE).dex([jar], tmp_path, library=framework, min_sdk=26)
    found = list(gaps(trace(made), classes([jar]), dex.classes(made[0])))
    users = [each.split("used by ")[1] for each in found]
    expected = ("inAndroid", "inJava", "inJava", "throughTheAppsOwnClass")
    assert sorted(user.split("(")[0].split(".")[-1] for user in users) == sorted(expected)
