"""The direct way to an APK: Maven, D8 and aapt2, with no Android SDK and no Gradle.

What changes often is made apart from what does not: the app's own classes are one dex, the
libraries another that is kept until one of their jars changes. Phones since Android 5 load any
number of dex files, and none is merged.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import console, files
from harness.errors import StageFailed
from harness.store import artifacts
from harness.tools import aapt2, android_project, apk_writer, d8, maven, poms
from harness.tools.android_project import Facts
from harness.types import Project

STAGE = "package"
# Part of every key below: raised when this module makes something else of the same inputs.
FORMAT = 1
_ANDROID = "http://schemas.android.com/apk/res/android"


@dataclass(frozen=True)
class Jars:
    """Compiled Kotlin: the project's own jars, and the libraries that they run with."""

    key: str
    own: tuple[Path, ...]
    libraries: tuple[Path, ...]


def assemble(
    project: Project, facts: Facts, workspace: Path, linker: aapt2.Aapt2, output: Path
) -> None:
    """Write the unsigned APK of `project` to `output`.

    Raises `MissingTool` and `StageFailed` as the tools do.
    """
    jars = compile_kotlin(project.path, workspace)
    framework = maven.resolve(project.path, ["android-all"])[0]
    translator = Translator(project.path, facts, framework, workspace)
    libraries = translator.libraries(jars)
    own = translator.own(jars)
    with console.step(STAGE, "manifest and resources with aapt2") as step:
        base = output.with_name("resources.apk")
        manifest = project.path / android_project.MANIFEST
        resources = project.path / android_project.RESOURCES
        link(manifest, resources, facts, framework, linker, base)
        step.update("writing the APK")
        entries = list(apk_writer.entries_of(base))
        entries += dex_entries([*own, *libraries])
        entries += library_entries(project.path)
        apk_writer.write(output, entries)
        base.unlink()
        step.done(f"APK written, {len(entries)} files")


def compile_kotlin(project: Path, workspace: Path) -> Jars:
    """Compile the Kotlin modules, or return the jars that are there."""
    inputs = {**kotlin_inputs(project, poms.modules_of(project)), "format": FORMAT}

    def work(folder: Path) -> Mapping[str, object]:
        # Maven's folder stays if the build fails, so that its own command can be tried there.
        scratch = artifacts.folder(workspace, f"{STAGE}-maven", artifacts.key_of(inputs))
        built = maven.build_kotlin(project, scratch)
        copies: dict[str, list[str]] = {"own": [], "libraries": []}
        for kind, jars in (("own", built.modules.values()), ("libraries", built.libraries)):
            (folder / kind).mkdir()
            for jar in jars:
                shutil.copyfile(jar, folder / kind / jar.name)
                copies[kind].append(f"{kind}/{jar.name}")
        shutil.rmtree(scratch)
        return copies

    made = artifacts.produce(workspace, f"{STAGE}-kotlin", inputs, work)
    facts = made.manifest["facts"]
    own, libraries = (
        tuple(made.path / name for name in facts[kind]) for kind in ("own", "libraries")
    )
    return Jars(made.key, own, libraries)


def kotlin_inputs(
    project: Path, modules: tuple[str, ...], folders: Sequence[str] = ("src/main",)
) -> dict[str, object]:
    """What a build of these `folders` of the modules depends on, for a key."""
    sources = {
        str(path.relative_to(project)): files.sha256_file(path)
        for module in modules
        for folder in folders
        for path in sorted((project / module / folder).rglob("*"))
        if path.is_file() and path.suffix in (".kt", ".java")
    }
    # The POMs name folders; those of an imaginary one say the same for every project.
    reactor = poms.reactor(Path("project"), poms.read_catalog(project), modules)
    described = hashlib.sha256(files.canonical_json(reactor)).hexdigest()
    return {"sources": sources, "poms": described}


class Translator:
    """D8 with what every translation of a project has in common."""

    def __init__(self, project: Path, facts: Facts, framework: Path, workspace: Path) -> None:
        self._project = project
        self._min_sdk = facts.min_sdk
        self._framework = framework
        self._workspace = workspace
        self._common = {
            "r8": facts.r8,
            "framework": facts.framework,
            "min_sdk": facts.min_sdk,
            "format": FORMAT,
        }

    def libraries(self, jars: Jars) -> tuple[Path, ...]:
        """The dex files of the libraries, kept as long as no jar changes."""
        hashes = {path.name: files.sha256_file(path) for path in jars.libraries}
        inputs = {"jars": hashes, **self._common}

        def work(folder: Path) -> Mapping[str, object]:
            with console.step(STAGE, f"dex of {len(hashes)} libraries with D8") as step:
                made = d8.find(self._project).dex(
                    jars.libraries, folder, library=self._framework, min_sdk=self._min_sdk
                )
                step.done(f"dex of {len(hashes)} libraries, {_size(made)}")
            return {}

        made = artifacts.produce(self._workspace, f"{STAGE}-dex-libraries", inputs, work)
        return d8.dex_files(made.path)

    def own(self, jars: Jars) -> tuple[Path, ...]:
        """The dex files of the project's own classes."""
        inputs = {"kotlin": jars.key, **self._common}

        def work(folder: Path) -> Mapping[str, object]:
            with console.step(STAGE, "dex of the app with D8") as step:
                made = d8.find(self._project).dex(
                    jars.own,
                    folder,
                    library=self._framework,
                    classpath=jars.libraries,
                    min_sdk=self._min_sdk,
                )
                step.done(f"dex of the app, {_size(made)}")
            return {}

        made = artifacts.produce(self._workspace, f"{STAGE}-dex", inputs, work)
        return d8.dex_files(made.path)


def merged_manifest(source: Path, application_id: str) -> bytes:
    """A manifest as Gradle's merger would hand it to aapt2: with its package in it.

    Raises `StageFailed` if `source` is not XML.
    """
    text = source.read_text(encoding="utf-8").replace("${applicationId}", application_id)
    ET.register_namespace("android", _ANDROID)
    try:
        root = ET.fromstring(text)
    except ET.ParseError as problem:
        raise StageFailed(
            f"{source.name} is not XML", cause=str(problem), remedy=f"correct {source}"
        ) from problem
    root.set("package", application_id)
    merged: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return merged


def link(
    source: Path,
    resources: Path | None,
    facts: Facts,
    framework: Path,
    linker: aapt2.Aapt2,
    base: Path,
) -> None:
    """Make `base`, an APK of the manifest `source` and of `resources`, without code."""
    values = aapt2.LinkValues(
        framework=framework,
        min_sdk=facts.min_sdk,
        target_sdk=facts.target_sdk,
        compile_sdk=facts.compile_sdk,
        version_code=facts.version_code,
        version_name=facts.version_name,
    )
    with tempfile.TemporaryDirectory(dir=base.parent) as folder:
        manifest = Path(folder) / "AndroidManifest.xml"
        compiled = Path(folder) / "res.zip" if resources else None
        manifest.write_bytes(merged_manifest(source, facts.application_id))
        if resources and compiled:
            linker.compile(resources, compiled)
        linker.link(manifest, compiled, base, values=values)


def dex_entries(paths: Sequence[Path]) -> list[apk_writer.Entry]:
    """The dex files under the names that Android looks for: classes.dex, classes2.dex, ..."""
    return [
        apk_writer.Entry(f"classes{number if number > 1 else ''}.dex", path.read_bytes(), True)
        for number, path in enumerate(paths, start=1)
    ]


def library_entries(project: Path) -> list[apk_writer.Entry]:
    """The native libraries that the project carries, under their names in an APK."""
    return [
        apk_writer.Entry(name, path.read_bytes(), True)
        for name, path in android_project.libraries(project).items()
    ]


def _size(paths: tuple[Path, ...]) -> str:
    return console.size(sum(path.stat().st_size for path in paths))
