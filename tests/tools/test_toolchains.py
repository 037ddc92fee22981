"""Compilers are found where people put them, and what is missing is named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import console
from harness.errors import MissingTool, StageFailed
from harness.tools import cmake, ndk, zig
from harness.types import Abi


def make_ndk(folder: Path, revision: str) -> Path:
    (folder / "build/cmake").mkdir(parents=True)
    (folder / "build/cmake/android.toolchain.cmake").touch()
    (folder / "source.properties").write_text(
        f"Pkg.Desc = Android NDK\nPkg.Revision = {revision}\n"
    )
    return folder


@pytest.fixture(autouse=True)
def no_ndk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ndk.VARIABLES, *ndk.SDK_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_without_an_ndk_the_remedy_is_named() -> None:
    with pytest.raises(MissingTool, match="no Android NDK found") as caught:
        ndk.find()
    assert caught.value.exit_code == 3
    assert "sdkmanager" in caught.value.remedy


def test_ndk_variables_are_read_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ndk(tmp_path / "sdk/ndk/26.1.10909125", "26.1.10909125")
    make_ndk(tmp_path / "sdk/ndk/27.2.12479018", "27.2.12479018")
    make_ndk(tmp_path / "sdk/ndk/9.0.1", "9.0.1")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert ndk.find().version == "27.2.12479018"
    for version, name in (("28.0.1", "ANDROID_NDK"), ("25.2.2", "ANDROID_NDK_HOME")):
        monkeypatch.setenv(name, str(make_ndk(tmp_path / version, version)))
        assert ndk.find().version == version
    assert ndk.find().toolchain == tmp_path / "25.2.2/build/cmake/android.toolchain.cmake"


def test_a_variable_that_names_no_ndk_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    monkeypatch.setenv("ANDROID_NDK", str(make_ndk(tmp_path / "good", "27.0.1")))
    with pytest.raises(MissingTool) as caught:
        ndk.find()
    assert f"ANDROID_NDK_HOME is {tmp_path}" in caught.value.cause


def test_an_old_ndk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_NDK_HOME", str(make_ndk(tmp_path / "old", "21.4.7075529")))
    with pytest.raises(MissingTool, match="too old"):
        ndk.find()


def test_zig_compiles_for_both_abis(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int answer(void) { return 42; }\n")
    for abi in Abi:
        argv = [*zig.find().compiler("c", abi), "-c", str(source), "-o", str(tmp_path / "a.o")]
        subprocess.run(argv, check=True)
        machine = (tmp_path / "a.o").read_bytes()[18]
        assert machine == {Abi.ARM64: 183, Abi.X86_64: 62}[abi]


def test_a_compiler_error_is_the_cause(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(p C)\nadd_library(p OBJECT good.c bad.c)\n"
    )
    (source / "good.c").write_text("int good;\n")
    (source / "bad.c").write_text("int bad = nonsense;\n")
    builder = cmake.find()
    settings = {"CMAKE_C_COMPILER": zig.find().compiler("c", Abi.X86_64)}
    cmake.configure(builder, source, tmp_path / "build", settings)
    with console.step("build", "a test") as step:
        with pytest.raises(StageFailed) as caught:
            cmake.build(builder, tmp_path / "build", step, jobs=1)
        assert "nonsense" in caught.value.cause
        (source / "bad.c").write_text("int bad = 1;\n")
        cmake.build(builder, tmp_path / "build", step, jobs=1)
        assert "of" in step.text and step.text.endswith(".c")
