"""qemu-user: found with its version, or missing with the command that brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import MissingTool
from harness.tools import qemu


def fake(folder: Path, output: str) -> None:
    program = folder / qemu.PROGRAM
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)


def test_without_qemu_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool) as failure:
        qemu.find()
    assert "qemu-user-static" in failure.value.remedy


def test_without_the_library_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, "qemu-aarch64 version 7.2.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(qemu, "SYSROOT", tmp_path / "nothing")
    with pytest.raises(MissingTool) as failure:
        qemu.find()
    assert "libc6-arm64-cross" in failure.value.remedy


def test_an_old_qemu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "qemu-aarch64 version 5.2.0")
    (tmp_path / "lib").mkdir()
    (tmp_path / qemu.LOADER).touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(qemu, "SYSROOT", tmp_path)
    with pytest.raises(MissingTool, match="too old"):
        qemu.find()


def test_the_emulated_processor_has_dot_products() -> None:
    try:
        found = qemu.find()
    except MissingTool as missing:
        pytest.skip(f"{missing.what}: {missing.remedy}")
    hwcap, _ = found.hardware_capabilities()
    assert hwcap >> 20 & 1
