"""The phone's own android.* classes: all that the app needs, and nothing that Android lacks."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from harness import process, resources
from harness.stages.package import package
from harness.stages.render import render
from harness.tools import d8, jdk, maven
from harness.types import Abi, Libc, RuntimeBundle, Target
from harness.virtual_phone import framework

pytestmark = pytest.mark.skipif(
    shutil.which("mvn") is None or shutil.which("javac") is None, reason="needs a JDK and Maven"
)
CHECKOUT = Path(__file__).parents[2]
TEMPLATE = resources.path("android-template")
# Annotations for compilers and editors; nothing looks for them at run time.
FOR_TOOLS = "android.annotation."
MISSING = re.compile(r"Missing (?:class|field|method) (?:\S+ )?((?:android|dalvik)\.\S+)")
# How the framework's packages reach into each other; apps cannot be compiled against these.
OWN = {
    "public android.content.pm.ApplicationInfo(Map)",
    "public android.content.pm.PackageInfo(ApplicationInfo, Map)",
    "public android.content.pm.PackageManager(PackageInfo)",
    "public dalvik.system.PathClassLoader(String, String, String, ClassLoader)",
    "public static void crash(String)",
    "public static void main(String[])",
}


OF_OBJECT = {"public String toString()", "public int hashCode()", "public boolean equals(Object)"}
OF_OBJECT |= {"public Object clone()"}


@pytest.fixture(scope="module")
def apk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app's own APK; what its runtime library holds does not matter here."""
    folder = tmp_path_factory.mktemp("runtime")
    library = folder / "libalc_runtime.so"
    library.write_bytes(b"\x7fELF")
    target = Target(Abi.ARM64, Libc.GLIBC)
    bundle = RuntimeBundle(folder, "framework-test", target, library, library)
    return package(render(bundle, CHECKOUT), CHECKOUT).path


def test_everything_that_the_app_uses_of_android_is_there(apk: Path, tmp_path: Path) -> None:
    tool = d8.find(TEMPLATE)
    argv: list[str | Path] = [tool.jdk.java, "-cp", tool.jar]
    argv += ["com.android.tools.r8.tracereferences.TraceReferences", "--check"]
    argv += ["--lib", framework.prepare(), "--lib", tool.jdk.home]
    with zipfile.ZipFile(apk) as archive:
        for name in archive.namelist():
            if name.endswith(".dex"):
                argv += ["--source", archive.extract(name, tmp_path)]
    done = process.run(argv, check=False)
    missing = MISSING.findall(done.stdout + done.stderr)
    assert [name for name in missing if not name.startswith(FOR_TOOLS)] == []


def test_nothing_is_offered_that_android_does_not_have() -> None:
    jar = framework.prepare()
    real = maven.resolve(TEMPLATE, ["android-all"])[0]
    with zipfile.ZipFile(jar) as archive, zipfile.ZipFile(real) as known:
        ours = {name for name in archive.namelist() if name.endswith(".class")}
        names = sorted(ours & set(known.namelist()))
    classes = [name.removesuffix(".class").replace("/", ".") for name in names]
    assert "android.app.Instrumentation" in classes
    mine, theirs = members(jar, classes), members(real, classes)
    extra = {
        f"{name}: {member}"
        for name in classes
        for member in mine[name]
        if member not in OWN | OF_OBJECT and not _inherited(member, name, theirs, real)
    }
    assert extra == set()


def members(jar: Path, classes: list[str]) -> dict[str, set[str]]:
    """The public and protected members of classes, without what does not concern callers."""
    words: list[str | Path] = [jdk.find().home / "bin/javap", "-protected", "-cp", jar]
    text = process.run([*words, *classes]).stdout
    found: dict[str, set[str]] = {}
    parents: dict[str, str] = {}
    current = ""
    for line in text.splitlines():
        heading = re.match(
            r"^.*\b(?:class|interface) ([\w.$]+)(?:<.*?>)?(?: extends ([\w.$]+))?", line
        )
        if heading and line.endswith("{"):
            current = heading.group(1)
            found[current] = set()
            parents[current] = heading.group(2) or ""
        elif line.startswith("  ") and current:
            found[current].add(_plain(line))
    return found


def _plain(line: str) -> str:
    """A member without modifiers, type parameters and packages of types."""
    line = re.sub(r"\b(final|abstract|synchronized|native|default|volatile|transient) ", "", line)
    line = re.sub(r" throws .*", "", line.strip().rstrip(";"))
    while re.search(r"<[^<>]*>", line):
        line = re.sub(r" ?<[^<>]*>", "", line)
    line = re.sub(r" = .*", "", line)
    head, parenthesis, arguments = line.partition("(")
    arguments = re.sub(r"[\w$]+\.(?=\w)", "", arguments)
    if " " in head:
        modifiers, _, name = head.rpartition(" ")
        head = re.sub(r"[a-z_]\w*\.(?=\w)", "", modifiers) + " " + name
    return re.sub(r"\s+", " ", head + parenthesis + arguments)


def _inherited(member: str, name: str, theirs: dict[str, set[str]], real: Path) -> bool:
    """Is the member that of the real class or of one above it?"""
    simple = name.rpartition(".")[2]
    while name:
        if name not in theirs:
            theirs.update(members(real, [name]))
        if member in theirs[name]:
            return True
        name = _parent(name, real)
        if f"{simple}(" in member:
            return False  # constructors are not inherited
    return False


def _parent(name: str, real: Path) -> str:
    words: list[str | Path] = [jdk.find().home / "bin/javap", "-protected", "-cp", real, name]
    found = re.search(r" extends ([\w.$]+)[^{]*\{", process.run(words).stdout)
    return found.group(1) if found and not found.group(1).startswith("java.lang.") else ""
