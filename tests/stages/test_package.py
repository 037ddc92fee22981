"""The APK that a phone gets: whole, aligned, signed, and made once."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import process
from harness.errors import StageFailed
from harness.stages.package import package
from harness.stages.package.check import Expected, check
from harness.stages.package.direct import merged_manifest
from harness.tools import android_project, apk, apk_writer, apksig, dex
from harness.types import Abi, Libc, Project, SignedApk, Target

LIBRARY = "lib/arm64-v8a/libalc_runtime.so"
needs_maven = pytest.mark.skipif(
    shutil.which("mvn") is None or shutil.which("javac") is None, reason="needs a JDK and Maven"
)


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.content for entry in apk_writer.entries_of(path)}


@needs_maven
def test_the_apk_is_what_the_project_says(
    projects: dict[Libc, Project], apks: dict[Libc, SignedApk]
) -> None:
    manifest = apk.read_manifest(apks[Libc.GLIBC].path)
    facts = android_project.read_facts(projects[Libc.GLIBC].path)
    assert manifest.package == facts.application_id == "dev.alc.harness"
    assert manifest.version_code == facts.version_code
    assert (manifest.min_sdk, manifest.target_sdk) == (26, 35)
    assert (manifest.debuggable, manifest.extract_native_libs) == (False, False)
    assert manifest.permissions == ()
    (door,) = manifest.instrumentations
    assert door.name == "dev.alc.app.HarnessInstrumentation"
    assert door.target_package == manifest.package


@needs_maven
def test_the_apk_holds_the_app_its_libraries_and_the_runtime(apks: dict[Libc, SignedApk]) -> None:
    entries = contents(apks[Libc.GLIBC].path)
    assert entries[LIBRARY].startswith(b"\x7fELF")
    files = [name for name in entries if name.endswith(".dex")]
    found = [dex.classes_in(entries[name]) for name in files]
    assert "dev.alc.app.MainActivity" in found[0]
    assert "dev.alc.engine.ALCEngine" in found[0]
    assert any("kotlinx.coroutines.flow.Flow" in each for each in found[1:])
    assert sum(map(len, found)) == len(frozenset().union(*found))
    assert not any(name.startswith(("android.", "java.")) for each in found for name in each)


@needs_maven
def test_the_apk_is_signed_with_the_users_debug_key(
    projects: dict[Libc, Project], apks: dict[Libc, SignedApk]
) -> None:
    signer = apksig.find(projects[Libc.GLIBC].path)
    signatures = {signer.verify(made.path) for made in apks.values()}
    (signature,) = signatures
    assert signature.schemes == (2, 3)


@needs_maven
def test_the_apks_of_a_phone_and_the_virtual_phone_differ_in_the_runtime_only(
    apks: dict[Libc, SignedApk],
) -> None:
    """Outside of their entries APKs hold nothing but the signature and the archive's directory."""
    virtual, phone = (contents(apks[libc].path) for libc in (Libc.GLIBC, Libc.BIONIC))
    assert list(virtual) == list(phone)
    assert [name for name in virtual if virtual[name] != phone[name]] == [LIBRARY]
    infos = [
        {
            info.filename: (info.compress_type, info.date_time, info.external_attr, info.flag_bits)
            for info in zipfile.ZipFile(apks[libc].path).infolist()
        }
        for libc in (Libc.GLIBC, Libc.BIONIC)
    ]
    assert infos[0] == infos[1]


@needs_maven
def test_a_second_call_runs_no_program(
    workspace: Path,
    projects: dict[Libc, Project],
    apks: dict[Libc, SignedApk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(process, "run", refuse)
    for libc, project in projects.items():
        assert package(project, workspace) == apks[libc]


@needs_maven
def test_the_same_inputs_give_the_same_bytes_in_another_workspace(
    workspace: Path, projects: dict[Libc, Project], apks: dict[Libc, SignedApk], tmp_path: Path
) -> None:
    """Kotlin and dex are taken over; linking, writing and signing are done again."""
    for name in ("package-kotlin", "package-dex", "package-dex-libraries"):
        made = workspace / ".harness/build" / name
        shutil.copytree(made, tmp_path / ".harness/build" / name)
    again = package(projects[Libc.GLIBC], tmp_path)
    assert again.path.read_bytes() == apks[Libc.GLIBC].path.read_bytes()


Entries = list[apk_writer.Entry]


def _compressed(entries: Entries) -> Entries:
    return [apk_writer.Entry(e.name, e.content, e.stored and e.name != LIBRARY) for e in entries]


def _without(name: str) -> Callable[[Entries], Entries]:
    return lambda entries: [entry for entry in entries if entry.name != name]


def _with_another_library(entries: Entries) -> Entries:
    return [*entries, apk_writer.Entry("lib/x86/libother.so", b"\x7fELF", True)]


@needs_maven
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_compressed, "is compressed"),
        (_without(LIBRARY), "its libraries are"),
        (_with_another_library, "its libraries are"),
        (_without("classes.dex"), "the manifest names dev.alc.app.MainActivity"),
    ],
)
def test_an_apk_that_is_not_as_it_should_be_is_refused(
    tmp_path: Path,
    projects: dict[Libc, Project],
    apks: dict[Libc, SignedApk],
    change: Callable[[Entries], Entries],
    complaint: str,
) -> None:
    project = projects[Libc.GLIBC]
    expected = Expected.of(project, android_project.read_facts(project.path))
    check(apks[Libc.GLIBC].path, expected)
    changed = tmp_path / "changed.apk"
    apk_writer.write(changed, change(list(apk_writer.entries_of(apks[Libc.GLIBC].path))))
    with pytest.raises(StageFailed) as caught:
        check(changed, expected)
    assert complaint in caught.value.cause


@needs_maven
def test_a_library_that_is_not_at_a_page_is_refused(
    tmp_path: Path, projects: dict[Libc, Project], apks: dict[Libc, SignedApk]
) -> None:
    project = projects[Libc.GLIBC]
    shifted = tmp_path / "shifted.apk"
    with zipfile.ZipFile(shifted, "w") as archive:
        for name, content in contents(apks[Libc.GLIBC].path).items():
            archive.writestr(name, content)
    with pytest.raises(StageFailed) as caught:
        check(shifted, Expected.of(project, android_project.read_facts(project.path)))
    assert "not at a 16 KB page" in caught.value.cause


def test_the_manifest_gets_its_package_as_gradles_merger_gives_it(tmp_path: Path) -> None:
    source = tmp_path / "AndroidManifest.xml"
    source.write_text(
        '<manifest xmlns:android="http://schemas.android.com/apk/res/android">'
        '<instrumentation android:targetPackage="${applicationId}"/></manifest>'
    )
    merged = merged_manifest(source, "a.b").decode()
    assert 'package="a.b"' in merged
    assert 'android:targetPackage="a.b"' in merged


def test_a_manifest_that_is_not_xml_names_the_file(tmp_path: Path) -> None:
    source = tmp_path / "AndroidManifest.xml"
    source.write_text("<manifest>")
    with pytest.raises(StageFailed) as caught:
        merged_manifest(source, "a.b")
    assert str(source) in caught.value.remedy


def test_a_folder_that_was_not_rendered_is_refused(tmp_path: Path) -> None:
    project = Project(tmp_path, "key", "a.b", Target(Abi.ARM64, Libc.GLIBC))
    with pytest.raises(StageFailed):
        package(project, tmp_path)
