"""Maven's projects come from Gradle's catalog; what goes wrong in a build is told in its words."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness import resources
from harness.errors import HarnessError, MissingTool, StageFailed
from harness.tools import maven, poms

NS = {"m": "http://maven.apache.org/POM/4.0.0"}


@pytest.fixture
def template() -> Path:
    return resources.path("android-template")


@pytest.fixture
def project(tmp_path: Path, template: Path) -> Path:
    """A project with the real catalog and one small module."""
    folder = tmp_path / "project"
    (folder / "gradle").mkdir(parents=True)
    (folder / poms.CATALOG).write_text((template / poms.CATALOG).read_text())
    source = folder / "engine/src/main/kotlin/One.kt"
    source.parent.mkdir(parents=True)
    source.write_text("public fun one(): Int = 1\n")
    return folder


@pytest.fixture
def real_maven() -> maven.Maven:
    try:
        return maven.find()
    except MissingTool as missing:
        pytest.skip(str(missing))


def fake_maven(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for mvn on PATH and a JDK beside it."""
    home = folder / "jdk"
    (home / "bin").mkdir(parents=True)
    for path in (home / "bin/java", home / "bin/javac", folder / "mvn"):
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
    (home / "release").write_text('JAVA_VERSION="17"\n')
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.delenv("MAVEN_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_every_version_comes_from_the_catalog(template: Path) -> None:
    catalog = poms.read_catalog(template)
    texts = poms.reactor(template, catalog, poms.MODULES)
    assert sorted(texts) == ["app/pom.xml", "engine/pom.xml", "pom.xml", "provider/pom.xml",
                             "runtime/pom.xml"]  # fmt: skip
    known = set(catalog.versions.values()) | {poms.VERSION}
    for name, text in texts.items():
        root = ET.fromstring(text)
        versions = {element.text for element in root.iterfind(".//m:version", NS)}
        assert versions <= known, name


def test_modules_stand_on_those_below_and_android_is_never_packaged(template: Path) -> None:
    catalog = poms.read_catalog(template)
    texts = poms.reactor(template, catalog, poms.MODULES)
    for index, module in enumerate(poms.MODULES):
        root = ET.fromstring(texts[f"{module}/pom.xml"])
        scopes = {
            dependency.findtext("m:artifactId", "", NS): dependency.findtext("m:scope", "", NS)
            for dependency in root.iterfind(".//m:dependencies/m:dependency", NS)
            if dependency.find("m:scope", NS) is not None
        }
        own = [name for name in scopes if name in poms.MODULES]
        assert own == list(poms.MODULES[:index])
        assert scopes.get("android-all") == ("provided" if module == "app" else None)
        assert scopes["junit"] == "test"


def test_paths_with_odd_characters_stay_whole(tmp_path: Path, template: Path) -> None:
    odd = tmp_path / "a&b <c> d"
    text = poms.reactor(odd, poms.read_catalog(template), ["engine"])["engine/pom.xml"]
    root = ET.fromstring(text)
    assert root.findtext(".//m:sourceDirectory", "", NS) == str(odd / "engine/src/main/kotlin")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "No such file"),
        ("[versions\n", "line 1"),
        ("[versions]\nkotlin = '1'\n", "missing 'libraries'"),
        ("[versions]\n[libraries]\na = {module = 'x', version.ref = 'k'}\n[bundles]\n", ""),
        ("[versions]\n[libraries]\n[bundles]\nengine = ['none']\n", "missing 'none'"),
    ],
)
def test_a_catalog_that_is_not_one_is_a_clear_error(
    project: Path, text: str | None, cause: str
) -> None:
    if text is None:
        (project / poms.CATALOG).unlink()
    else:
        (project / poms.CATALOG).write_text(text)
    with pytest.raises(StageFailed) as caught:
        poms.read_catalog(project)
    assert cause in caught.value.cause and caught.value.remedy


def test_without_maven_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_maven(tmp_path, "", monkeypatch)
    (tmp_path / "mvn").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="no Maven found") as caught:
        maven.find()
    assert "apt install maven" in caught.value.remedy
    monkeypatch.setenv("MAVEN_HOME", str(tmp_path / "none"))
    with pytest.raises(MissingTool) as caught:
        maven.find()
    assert "MAVEN_HOME is" in caught.value.cause


def test_a_build_without_a_network_says_so(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
case "$*" in
*--offline*) echo "[ERROR] Cannot access central in offline mode"; exit 1;;
*) echo "[ERROR] Unknown host repo.example.org: Name or service not known"; exit 1;;
esac
"""
    fake_maven(tmp_path / "tools", script, monkeypatch)
    with pytest.raises(MissingTool, match="needs the network") as caught:
        maven.build_kotlin(project, tmp_path / "out")
    assert "Unknown host" in caught.value.cause


def test_a_project_without_modules_is_a_clear_error(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_maven(tmp_path / "tools", "", monkeypatch)
    (project / "engine").rename(project / "other")
    with pytest.raises(StageFailed, match="has no Kotlin modules"):
        maven.build_kotlin(project, tmp_path / "out")


def test_a_build_gives_the_modules_and_what_they_run_with(
    project: Path, tmp_path: Path, real_maven: maven.Maven
) -> None:
    before = sorted(project.rglob("*"))
    jars = maven.build_kotlin(project, tmp_path / "out")
    assert list(jars.modules) == ["engine"] and jars.modules["engine"].is_file()
    names = {path.name.rsplit("-", 1)[0] for path in jars.libraries}
    assert {"kotlin-stdlib", "kotlinx-coroutines-core-jvm"} <= names
    assert not names & {"junit", "android-all"}
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("public fun one(): Int = \n", "One.kt"),
        ("fun one(): Int = 1\n", "Visibility must be specified in explicit API mode"),
        ("public fun one(): Int {\n    val idle = 2\n    return 1\n}\n", "One.kt:2:9"),
    ],
)
def test_a_mistake_in_the_sources_is_told_in_the_compilers_words(
    project: Path, tmp_path: Path, real_maven: maven.Maven, source: str, words: str
) -> None:
    (project / "engine/src/main/kotlin/One.kt").write_text(source)
    with pytest.raises(HarnessError) as caught:
        maven.build_kotlin(project, tmp_path / "out")
    assert words in caught.value.cause
    assert str(real_maven.program) in caught.value.remedy


def test_libraries_are_resolved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Path, real_maven: maven.Maven
) -> None:
    monkeypatch.setattr(maven, "cache_folder", lambda: tmp_path)
    first = maven.resolve(template, ["coroutines-core"])
    assert any(path.name.startswith("kotlinx-coroutines-core-jvm") for path in first)
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert maven.resolve(template, ["coroutines-core"]) == first
