"""An APK beside the app's that carries the Kotlin modules' own tests, to run them on a device.

The same classes, libraries and native runtime as the app's, with JUnit and the compiled tests.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import console, files
from harness.stages.package import direct
from harness.store import artifacts
from harness.tools import aapt2, android_project, apk_writer, apksig, class_names, maven, poms
from harness.tools.android_project import Facts
from harness.types import Project

STAGE = "package"
# Part of the key: raised when this module makes something else of the same inputs.
FORMAT = 1
MANIFEST = Path(poms.SUITES) / "src/main/AndroidManifest.xml"
_SERVICES = "META-INF/services/"
_TEST = re.compile(r"([\w/]+Test)\.class")


@dataclass(frozen=True)
class SuitesApk:
    """The signed APK, and the test classes in it."""

    path: Path
    application_id: str
    classes: tuple[str, ...]


def suites(project: Project, workspace: Path) -> SuitesApk:
    """Make the suites' APK for a rendered project, or return the one that is there.

    Raises `MissingTool` and `StageFailed` as `package` does.
    """
    app = android_project.read_facts(project.path)
    facts = replace(app, application_id=f"{app.application_id}.{poms.SUITES}")
    keystore = apksig.debug_keystore()
    linker = aapt2.find()
    inputs = {
        "project": project.key,
        "signer": files.sha256_file(keystore),
        "aapt2": linker.version,
        "tools": [direct.FORMAT, FORMAT],
    }

    jars, classes = _compile(project.path, workspace)

    def work(folder: Path) -> Mapping[str, object]:
        unsigned = folder / "unsigned.apk"
        _assemble(project.path, facts, workspace, linker, jars, unsigned)
        signer = apksig.find(project.path)
        signer.sign(unsigned, folder / "suites.apk", keystore=keystore, min_sdk=facts.min_sdk)
        unsigned.unlink()
        return {}

    made = artifacts.produce(workspace, f"{STAGE}-suites", inputs, work)
    return SuitesApk(made.path / "suites.apk", facts.application_id, classes)


def _compile(project: Path, workspace: Path) -> tuple[direct.Jars, tuple[str, ...]]:
    """The jars of modules and tests, and the names of the test classes; kept by their sources."""
    modules = (*poms.modules_of(project), poms.SUITES)
    inputs = {**direct.kotlin_inputs(project, modules, ("src/main", "src/test")), "format": FORMAT}

    def work(folder: Path) -> Mapping[str, object]:
        scratch = artifacts.folder(workspace, f"{STAGE}-maven", artifacts.key_of(inputs))
        built, tests = maven.build_suites(project, scratch)
        names: list[str] = []
        for kind, jars in (("own", built.modules.values()), ("libraries", built.libraries)):
            (folder / kind).mkdir()
            for jar in jars:
                shutil.copyfile(jar, folder / kind / jar.name)
        for module, compiled in tests.items():
            jar = scratch / f"{module}-tests.jar"
            names += _pack(compiled, jar)
            class_names.fit_for_dex(jar, folder / "own" / jar.name)
        shutil.rmtree(scratch)
        return {"classes": names}

    made = artifacts.produce(workspace, f"{STAGE}-suites-kotlin", inputs, work)
    own, libraries = (tuple(sorted((made.path / kind).iterdir())) for kind in ("own", "libraries"))
    classes = tuple(str(name) for name in made.manifest["facts"]["classes"])
    return direct.Jars(made.key, own, libraries), classes


def _pack(compiled: Path, jar: Path) -> list[str]:
    """Put a folder of classes into `jar`; the names of the test classes among them."""
    names = []
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted(compiled.rglob("*.class")):
            name = path.relative_to(compiled).as_posix()
            archive.write(path, name)
            if found := _TEST.fullmatch(name):
                names.append(found.group(1).replace("/", "."))
    return names


def _assemble(
    project: Path,
    facts: Facts,
    workspace: Path,
    linker: aapt2.Aapt2,
    jars: direct.Jars,
    output: Path,
) -> None:
    framework = maven.resolve(project, ["android-all"])[0]
    translator = direct.Translator(project, facts, framework, workspace)
    libraries = translator.libraries(jars)
    own = translator.own(jars)
    with console.step(STAGE, "writing the suites' APK") as step:
        base = output.with_name("base.apk")
        direct.link(project / MANIFEST, None, facts, framework, linker, base)
        entries = list(apk_writer.entries_of(base))
        entries += direct.dex_entries([*own, *libraries])
        entries += direct.library_entries(project)
        entries += _services(jars.libraries)
        apk_writer.write(output, entries)
        step.done(f"suites' APK written, {len(entries)} files")


def _services(jars: Sequence[Path]) -> list[apk_writer.Entry]:
    """What libraries offer to java.util.ServiceLoader; lists of the same service are joined."""
    lists: dict[str, bytes] = {}
    for path in jars:
        with zipfile.ZipFile(path) as jar:
            for name in jar.namelist():
                if name.startswith(_SERVICES) and name != _SERVICES:
                    lists[name] = lists.get(name, b"") + jar.read(name).rstrip() + b"\n"
    return [apk_writer.Entry(name, lists[name], False) for name in sorted(lists)]
