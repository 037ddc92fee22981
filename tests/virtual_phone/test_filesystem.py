"""Device paths: resolved inside the phone, with the shell user's rights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.virtual_phone.filesystem import DeviceFiles, Storage

parts = st.sampled_from(["..", ".", "", "a", "loop", "out", "data", "local", "tmp", "up"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for folder in ("data/local/tmp", "data/data/app", "a", "system"):
        (root / folder).mkdir(parents=True)
    (root / "storage/emulated/0").mkdir(parents=True)
    (root / "out").symlink_to("/etc")
    (root / "up").symlink_to("../../../..")
    (root / "loop").symlink_to("loop")
    (root / "sdcard").symlink_to("/storage/emulated/0")
    (root / "a/tmp").symlink_to("/data/local/tmp")
    return root


@settings(max_examples=200)
@given(st.lists(parts, max_size=8))
def test_no_path_leads_out_of_the_phone(root: Path, names: list[str]) -> None:
    files = DeviceFiles(lambda: root)
    try:
        place = files.resolve("/" + "/".join(names))
    except OSError:
        assert "loop" in names
        return
    assert place.host == str(root) + place.device.rstrip("/") or place.device == "/"
    assert ".." not in place.device.split("/")


def test_links_are_followed_inside(root: Path) -> None:
    files = DeviceFiles(lambda: root)
    assert files.resolve("/a/tmp/x").device == "/data/local/tmp/x"
    assert files.resolve("/sdcard", follow=False).device == "/sdcard"


@pytest.mark.parametrize("path", ["/data/local/tmp/x", "/sdcard/Download/x", "/a/tmp/deep/x"])
def test_the_shell_may_write_where_a_phone_lets_it(root: Path, path: str) -> None:
    assert DeviceFiles(lambda: root).writable(path).startswith(str(root))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/system/x", "Read-only file system"),
        ("/x", "Read-only file system"),
        ("/data/x", "Permission denied"),
        ("/data/data/app/x", "Permission denied"),
        ("/data/local/tmp/../../data/x", "Permission denied"),
    ],
)
def test_the_shell_may_not_write_elsewhere(root: Path, path: str, reason: str) -> None:
    with pytest.raises(OSError, match=reason):
        DeviceFiles(lambda: root).writable(path)


def test_the_shell_may_not_read_what_belongs_to_an_app(root: Path) -> None:
    with pytest.raises(PermissionError):
        DeviceFiles(lambda: root).readable("/data/data/app/secret")


def test_storage_counts_files_and_what_was_written_since(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    storage = Storage(tmp_path, capacity=4 << 20)
    assert storage.used() >= 1 << 20
    before = storage.free()
    storage.wrote(1 << 20)
    assert storage.free() == before - (1 << 20)
    storage.free_override = 100
    storage.wrote(60)
    assert storage.free() == 40
