"""Which adb is used, and where its server is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import MissingTool, UsageError
from harness.tools import adb


def fake(folder: Path, protocol: int) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / "adb"
    program.write_text(
        f"#!/bin/sh\necho 'Android Debug Bridge version 1.0.{protocol}'\necho 'Version 1.2.3-x'\n"
    )
    program.chmod(0o755)
    return program


def test_the_adb_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake(tmp_path, 41)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "5999")
    assert adb.find() == adb.Adb(program, "1.2.3-x", 5999)


@pytest.mark.parametrize("protocol", [39, 40, None])
def test_without_a_recent_one_on_path_the_bundled_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int | None
) -> None:
    if protocol is not None:
        fake(tmp_path, protocol)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin" if protocol else str(tmp_path))
    found = adb.find()
    assert "adbutils" in str(found.path) and found.server_port == adb.DEFAULT_PORT


def test_no_adb_at_all_is_a_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingTool) as raised:
        adb.find()
    assert "apt install adb" in raised.value.remedy


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1"])
def test_a_port_that_is_none_is_a_usage_error(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    with pytest.raises(UsageError):
        adb.find()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "Android Debug Bridge version 1.0.41\nVersion 29.0.6-debian\nInstalled as x",
            "29.0.6-debian",
        ),
        ("Android Debug Bridge version 1.0.39\r\nVersion 1:8.1.0\r\n", None),
        ("something else", None),
    ],
)
def test_versions_are_read(text: str, version: str | None) -> None:
    assert adb.read_version(text) == version
