"""A JDK is found where people have it, and what is no JDK is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MissingTool
from harness.tools import jdk


def make_jdk(home: Path, version: str | None = '"17.0.15"', *, compiler: bool = True) -> Path:
    (home / "bin").mkdir(parents=True)
    for name in ("java", "javac") if compiler else ("java",):
        program = home / "bin" / name
        program.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\" 2024-01-16' >&2\n")
        program.chmod(0o755)
    if version is not None:
        (home / "release").write_text(f"IMPLEMENTOR=x\nJAVA_VERSION={version}\nOS_NAME=Linux\n")
    return home


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")


def test_java_home_goes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, on_path = make_jdk(tmp_path / "a"), make_jdk(tmp_path / "b", '"21"')
    monkeypatch.setenv("PATH", f"{on_path}/bin")
    assert jdk.find() == jdk.Jdk(on_path, 21)
    monkeypatch.setenv("JAVA_HOME", str(named))
    assert jdk.find() == jdk.Jdk(named, 17)


def test_a_link_on_the_path_leads_to_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_jdk(tmp_path / "jdk")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/javac").symlink_to(home / "bin/javac")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert jdk.find().home == home


def test_without_a_release_file_java_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_jdk(tmp_path / "jdk", None)))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert jdk.find().version == 21


def test_no_java_at_all_names_the_package_to_install() -> None:
    with pytest.raises(MissingTool, match="no JDK found") as caught:
        jdk.find()
    assert caught.value.exit_code == 3
    assert "apt install" in caught.value.remedy


def test_a_runtime_without_a_compiler_is_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_jdk(tmp_path / "jre", compiler=False)
    monkeypatch.setenv("PATH", f"{home}/bin")
    with pytest.raises(MissingTool) as caught:
        jdk.find()
    assert "without a compiler" in caught.value.cause
    monkeypatch.setenv("JAVA_HOME", str(home))
    with pytest.raises(MissingTool) as caught:
        jdk.find()
    assert "has no bin/javac" in caught.value.cause


@pytest.mark.parametrize("version", ['"1.8.0_402"', '"11.0.22"'])
def test_an_old_jdk_is_refused_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_jdk(tmp_path / "jdk", version)))
    with pytest.raises(MissingTool, match="too old") as caught:
        jdk.find()
    assert "17 or newer" in caught.value.cause
