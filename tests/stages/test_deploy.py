"""deploy sends what the device lacks, whole files at a time, and trusts only hashes.

The link here runs deploy's own scripts in a shell of this machine, on a folder that stands for
the device's storage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.device import model_store
from harness.device.link import DeviceFull, DeviceGone, Progress, ShellResult
from harness.errors import DeviceError, StageFailed
from harness.stages import deploy as stage
from harness.types import Abi, Device, Libc, ModelPackage, SignedApk, Target

DATA = "/data/local/tmp"


class FolderLink:
    """A device whose /data/local/tmp is a folder, with room for so many bytes."""

    serial = "folder"

    def __init__(self, folder: Path, room: int = 1 << 40) -> None:
        self.folder = folder
        self.room = room
        self.pushed: list[str] = []
        self.break_at = -1
        self.installed: Path | None = None
        self.installs = 0

    def local(self, text: str) -> str:
        return text.replace(DATA, str(self.folder))

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def shell(
        self, argv: Sequence[str], *, timeout: float = 60.0, check: bool = True
    ) -> ShellResult:
        if argv[:2] == ["rm", "-rf"]:
            argv = [word for word in argv if not word.startswith("/sdcard")]
        if argv[:2] == ["pm", "path"]:
            path = self.installed
            return ShellResult(0, f"package:{path}\n" if path else "", "")
        done = subprocess.run(
            [self.local(word) for word in argv], capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise DeviceError("failed", cause=done.stderr)
        out = done.stdout.replace(str(self.folder), DATA)
        if "stat -f" in " ".join(argv):
            free = max(0, self.room - self.used())
            first, _, rest = out.partition("\n")
            out = (f"free {free} 1" if first.startswith("free") else f"{free} 1") + f"\n{rest}"
        return ShellResult(done.returncode, out, done.stderr)

    def push(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        if len(self.pushed) == self.break_at:
            Path(self.local(remote)).write_bytes(local.read_bytes()[:10])
            raise DeviceGone("gone", cause="cable", remedy="plug it in")
        data = local.read_bytes()
        if self.used() + len(data) > self.room:
            Path(self.local(remote)).write_bytes(data[:10])
            raise DeviceFull("full", cause="No space left on device")
        Path(self.local(remote)).write_bytes(data)
        self.pushed.append(local.name)
        if progress is not None:
            progress(len(data))

    def push_bytes(self, data: bytes, remote: str) -> None:
        Path(self.local(remote)).write_bytes(data)

    def install(self, apk: Path) -> None:
        self.installs += 1
        self.installed = self.folder / "app" / "base.apk"
        self.installed.parent.mkdir(exist_ok=True)
        shutil.copy(apk, self.installed)

    def stream(self, argv: Sequence[str]) -> contextlib.AbstractContextManager[object]:
        raise AssertionError(argv)

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "harness").rglob("*") if path.is_file())


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    """Three shards (two of them equal) and a library; KV cache of 1 KiB a token."""
    folder = tmp_path / "package"
    (folder / "lib").mkdir(parents=True)
    contents = {
        "params_shard_0.bin": os.urandom(5000),
        "params_shard_1.bin": bytes(4000),
        "params_shard_2.bin": bytes(4000),
        "lib/libmodel.so": os.urandom(300),
    }
    files = {}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    document = {
        "schema": "harness.package/2",
        "context_window": 2048,
        "kv_cache": {"bytes_per_token": 1024},
        "files": files,
    }
    (folder / "package.json").write_text(json.dumps(document))
    return ModelPackage(folder, "k" * 64, "tiny", "q4f16_gguf", (Abi.ARM64,), 13000)


@pytest.fixture
def apk(tmp_path: Path) -> SignedApk:
    path = tmp_path / "app.apk"
    path.write_bytes(b"an APK")
    digest = hashlib.sha256(b"an APK").hexdigest()
    return SignedApk(path, "a", "dev.alc.harness", digest, Target(Abi.ARM64, Libc.GLIBC))


@pytest.fixture
def link(tmp_path: Path) -> FolderLink:
    folder = tmp_path / "device"
    folder.mkdir()
    return FolderLink(folder)


def device(memory: int = 8 << 30) -> Device:
    return Device("folder", "Folder", Abi.ARM64, Libc.GLIBC, 34, memory, "f", True)


def test_the_first_deploy_sends_each_content_once(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    done = stage.deploy(link, device(), apk, package)
    assert sorted(link.pushed)[:1] == ["libmodel.so"] and len(link.pushed) == 4
    assert done.pushed_bytes == 5000 + 4000 + 300 + (package.path / "package.json").stat().st_size
    stamp = json.loads(Path(link.local(done.stamp)).read_text())
    assert stamp["schema"] == "harness.installed-model/1" and stamp["package"] == package.key
    assert set(stamp["files"]) == {
        "params_shard_0.bin",
        "params_shard_1.bin",
        "params_shard_2.bin",
        "lib/libmodel.so",
        "package.json",
    }
    for entry in stamp["files"].values():
        data = Path(link.local(entry["path"])).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert Path(link.local(entry["path"])).stat().st_mode & 0o777 == 0o644
    assert Path(link.local(done.stamp)).stat().st_mode & 0o777 == 0o644


def test_the_second_deploy_sends_nothing(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    stage.deploy(link, device(), apk, package)
    before = list(link.pushed)
    assert stage.deploy(link, device(), apk, package).pushed_bytes == 0
    assert link.pushed == before and link.installs == 1


def test_a_deploy_removes_what_killed_runs_left(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    left = link.folder / "harness/requests/00c0ffee.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    stage.deploy(link, device(), apk, package)
    assert not left.exists()


def test_deploy_resumes_after_a_disconnect_by_whole_files(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    link.break_at = 2
    with pytest.raises(DeviceGone):
        stage.deploy(link, device(), apk, package)
    assert not list((link.folder / "harness/models").iterdir())
    link.break_at = -1
    done = stage.deploy(link, device(), apk, package)
    assert len(link.pushed) == 4 and 0 < done.pushed_bytes < 1000
    assert not any(name.endswith(".part") for name in link.files())


def test_a_full_device_is_refused_before_the_first_byte(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    link.room = model_store.SPARE_BYTES + 5000
    with pytest.raises(DeviceFull) as raised:
        stage.deploy(link, device(), apk, package)
    assert "MiB free" in raised.value.cause and "rm -r" in raised.value.remedy
    assert link.pushed == []


def test_a_device_that_fills_up_in_mid_push_keeps_no_part(
    link: FolderLink, apk: SignedApk, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_store, "SPARE_BYTES", 0)
    link.room = 12_000

    def grow(local: Path, remote: str, *, progress: Progress | None = None) -> None:
        link.room = 7000
        FolderLink.push(link, local, remote, progress=progress)

    monkeypatch.setattr(link, "push", grow)
    with pytest.raises(DeviceFull) as raised:
        stage.deploy(link, device(), apk, package)
    assert raised.value.exit_code == 5 and "MiB free" in raised.value.cause
    assert len(link.files()) == 1 and len(link.files()[0]) == 64


def test_a_damaged_file_is_found_when_asked_and_sent_again(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    done = stage.deploy(link, device(), apk, package)
    stamp = json.loads(Path(link.local(done.stamp)).read_text())
    blob = Path(link.local(stamp["files"]["params_shard_0.bin"]["path"]))
    good = blob.read_bytes()
    blob.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    assert stage.deploy(link, device(), apk, package).pushed_bytes == 0
    assert stage.deploy(link, device(), apk, package, verify=True).pushed_bytes == 5000
    assert blob.read_bytes() == good


def test_a_file_of_the_wrong_size_is_sent_again_unasked(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    done = stage.deploy(link, device(), apk, package)
    stamp = json.loads(Path(link.local(done.stamp)).read_text())
    Path(link.local(stamp["files"]["params_shard_1.bin"]["path"])).write_bytes(b"cut")
    assert stage.deploy(link, device(), apk, package).pushed_bytes == 4000


def test_files_that_no_stamp_vouches_for_are_hashed(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    done = stage.deploy(link, device(), apk, package)
    stamp = Path(link.local(done.stamp))
    document = json.loads(stamp.read_text())
    Path(link.local(document["files"]["params_shard_0.bin"]["path"])).write_bytes(bytes(5000))
    stamp.unlink()
    assert stage.deploy(link, device(), apk, package).pushed_bytes == 5000
    assert stamp.is_file()


def test_a_file_that_arrives_damaged_is_not_kept(
    link: FolderLink, apk: SignedApk, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(local: Path, remote: str, *, progress: Progress | None = None) -> None:
        Path(link.local(remote)).write_bytes(bytes(local.stat().st_size + 1))

    monkeypatch.setattr(link, "push", flip)
    with pytest.raises(DeviceError, match="did not arrive whole"):
        stage.deploy(link, device(), apk, package)
    assert not any(len(name) == 64 for name in link.files())


def test_a_model_that_does_not_fit_the_memory_is_refused_with_numbers(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    with pytest.raises(DeviceError) as raised:
        stage.deploy(link, device(memory=300 << 20), apk, package)
    assert "KV cache of 2048 tokens 2.0 MiB" in raised.value.cause
    assert "300.0 MiB" in raised.value.cause and link.pushed == []
    with pytest.raises(DeviceError, match="does not fit"):
        stage.deploy(link, device(), apk, package, context=10_000_000)


def test_a_damaged_package_is_not_sent(
    link: FolderLink, apk: SignedApk, package: ModelPackage
) -> None:
    (package.path / "lib/libmodel.so").write_bytes(b"short")
    with pytest.raises(StageFailed) as raised:
        stage.deploy(link, device(), apk, package)
    assert "lib/libmodel.so" in raised.value.cause and link.pushed == []


def test_an_apk_that_the_device_changed_is_an_error(
    link: FolderLink, apk: SignedApk, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(path: Path) -> None:
        FolderLink.install(link, path)
        assert link.installed is not None
        link.installed.write_bytes(b"another")

    monkeypatch.setattr(link, "install", install)
    with pytest.raises(DeviceError, match="another APK"):
        stage.deploy(link, device(), apk, package)
