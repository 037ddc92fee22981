"""The phone under adbutils, which speaks adb's protocols itself."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.phone


@pytest.fixture(scope="module")
def device(phone) -> Any:
    import adbutils

    client = adbutils.AdbClient(host="127.0.0.1", port=phone.adb.port)
    return client.device(serial=phone.phone.serial)


def test_shell_runs(device) -> None:
    assert device.shell("echo hi") == "hi"
    assert device.shell(["echo", "a b", "$HOME"]) == "a b $HOME"
    result = device.shell2("echo hi; echo e >&2; exit 3", v2=True)
    assert (result.stdout, result.stderr, result.returncode) == ("hi\n", "e\n", 3)


def test_properties_are_read(device) -> None:
    assert device.prop.model.startswith("Virtual Phone")
    assert device.get_state() == "device"


def test_sync_pushes_pulls_lists_and_tells_of_files(device, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    device.sync.push(data, "/data/local/tmp/from-adbutils", check=True)
    assert device.shell("md5sum /data/local/tmp/from-adbutils").split()[0] == (
        hashlib.md5(data).hexdigest()
    )
    assert device.sync.read_bytes("/data/local/tmp/from-adbutils") == data
    assert device.sync.stat("/data/local/tmp/from-adbutils").size == len(data)
    assert not device.sync.exists("/nowhere")
    names = [entry.path for entry in device.sync.list("/data/local/tmp")]
    assert "from-adbutils" in names
    device.shell("rm /data/local/tmp/from-adbutils")


def test_apps_are_installed_started_and_removed(device, probe_apk: Path) -> None:
    device.install(str(probe_apk), nolaunch=True, silent=True)
    assert "dev.probe" in device.list_packages()
    info = device.app_info("dev.probe")
    assert info is not None and info.version_name == "1.1"
    device.app_start("dev.probe", ".ProbeActivity")
    device.app_stop("dev.probe")


def test_the_screen_has_a_size(device) -> None:
    assert tuple(device.window_size()) == (1080, 2400)
