"""Installing: what a phone checks, the virtual phone checks."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from harness.types import Abi

pytestmark = pytest.mark.phone


def install(phone, *words: str | Path) -> str:
    done = phone.run("install", *words, timeout=120)
    return done.stdout + done.stderr


def test_an_app_is_installed_listed_and_found(probe) -> None:
    assert "package:dev.probe" in probe.shell("pm list packages").splitlines()
    path = probe.shell("pm path dev.probe").removeprefix("package:")
    assert path.endswith("/base.apk")
    listed = probe.shell("pm list instrumentation")
    assert listed == "instrumentation:dev.probe/dev.probe.Probe (target=dev.probe)"
    assert "primaryCpuAbi=x86_64" in probe.shell("dumpsys package dev.probe")


def test_the_installed_apk_is_the_file_that_was_sent(probe, probe_apk: Path) -> None:
    import hashlib

    path = probe.shell("pm path dev.probe").removeprefix("package:")
    digest = hashlib.sha256(probe_apk.read_bytes()).hexdigest()
    assert probe.shell(f"sha256sum {path}").startswith(digest)


def test_only_the_libraries_of_the_phone_s_abi_are_taken(probe) -> None:
    folder = probe.shell("pm path dev.probe").removeprefix("package:").rpartition("/")[0]
    assert probe.shell(f"ls {folder}/lib") == "x86_64"


@pytest.mark.parametrize("way", [[], ["--no-streaming"]])
def test_both_ways_of_sending_install(phone, probe_apk: Path, way: list[str]) -> None:
    assert "Success" in install(phone, *way, "-r", probe_apk)


def test_a_session_installs(phone, probe_apk: Path) -> None:
    phone.run("push", probe_apk, "/data/local/tmp/probe.apk")
    created = phone.shell("pm install-create")
    number = created.partition("[")[2].partition("]")[0]
    written = phone.shell(f"pm install-write {number} base /data/local/tmp/probe.apk")
    assert written.startswith("Success: streamed")
    assert phone.shell(f"pm install-commit {number}") == "Success"
    assert "SecurityException" in phone.run("shell", f"pm install-commit {number}").stderr


def test_a_broken_signature_is_refused(probe, probe_apk: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.apk"
    with zipfile.ZipFile(probe_apk) as archive:
        where = archive.getinfo("classes.dex").header_offset
    data = bytearray(probe_apk.read_bytes())
    data[where + 200] ^= 1
    broken.write_bytes(data)
    assert "INSTALL_PARSE_FAILED_NO_CERTIFICATES" in install(probe, "-r", broken)


def test_an_unsigned_apk_is_refused(probe, app_kit) -> None:
    app_kit.build("unsigned-source")
    unsigned = app_kit.folder / "unsigned-source.unsigned.apk"
    assert "INSTALL_PARSE_FAILED_NO_CERTIFICATES" in install(probe, "-r", unsigned)


def test_what_is_no_apk_is_refused(probe, tmp_path: Path) -> None:
    file = tmp_path / "no.apk"
    file.write_bytes(b"PK\x03\x04 and then something else")
    assert "INSTALL_PARSE_FAILED_NOT_APK" in install(probe, file)


def test_an_update_signed_by_another_is_refused_and_the_old_app_stays(
    probe, app_kit, new_keystore
) -> None:
    other = app_kit.build("other-key", keystore=new_keystore)
    assert "INSTALL_FAILED_UPDATE_INCOMPATIBLE" in install(probe, "-r", other)
    assert probe.shell("pm path dev.probe")


def test_a_downgrade_is_refused_unless_asked_for(probe, app_kit, probe_apk: Path) -> None:
    newer = app_kit.build("newer", version_code=7)
    assert "Success" in install(probe, "-r", newer)
    assert "INSTALL_FAILED_VERSION_DOWNGRADE" in install(probe, "-r", probe_apk)
    assert "Success" in install(probe, "-r", "-d", probe_apk)


def test_an_app_for_another_processor_is_refused(probe, app_kit) -> None:
    apk = app_kit.build("arm64-only", abis=(Abi.ARM64,))
    assert "INSTALL_FAILED_NO_MATCHING_ABIS" in install(probe, "-r", apk)


def test_a_cut_stream_installs_nothing(probe, probe_apk: Path) -> None:
    data = probe_apk.read_bytes()
    size = len(data) + 1000
    phone_file = "/data/local/tmp/short.apk"
    probe.run("push", probe_apk, phone_file)
    done = probe.run("shell", f"cat {phone_file} | pm install -S {size}")
    assert "INSTALL_FAILED_INVALID_APK" in done.stdout + done.stderr
    left = probe.phone.folder / "rootfs/data/app"
    assert not list(left.glob("*.tmp"))


def test_clearing_removes_what_the_app_wrote(probe) -> None:
    probe.shell("run-as dev.probe touch files/kept")
    assert "kept" in probe.shell("run-as dev.probe ls files").split()
    assert probe.shell("pm clear dev.probe") == "Success"
    assert probe.shell("run-as dev.probe ls files") == ""


def test_uninstalling_leaves_nothing(phone, probe_apk: Path) -> None:
    install(phone, "-r", probe_apk)
    assert "Success" in phone.run("uninstall", "dev.probe").stdout
    assert phone.shell("pm path dev.probe") == ""
    root = phone.phone.folder / "rootfs/data"
    assert not (root / "data/dev.probe").exists()
    assert not [each for each in root.glob("app/~~*") if each.is_dir()]
    assert phone.run("uninstall", "dev.probe").returncode != 0
    install(phone, probe_apk)


@pytest.fixture
def new_keystore(app_kit, tmp_path: Path) -> Path:
    """A key that is not the app's."""
    import subprocess

    path = tmp_path / "other.keystore"
    keytool = shutil.which("keytool")
    assert keytool is not None
    words = ["-genkeypair", "-keystore", str(path), "-storetype", "PKCS12", "-alias"]
    words += ["androiddebugkey", "-storepass", "android", "-keypass", "android", "-keyalg", "RSA"]
    words += ["-keysize", "2048", "-dname", "CN=Other"]
    subprocess.run([keytool, *words], check=True, capture_output=True)
    return path
