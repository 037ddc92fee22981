"""Faults that the phone can be told to suffer, seen by a real adb."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.types import Abi
from harness.virtual_phone import faults, lifecycle

pytestmark = pytest.mark.phone


@pytest.fixture
def victim(probe) -> Iterator[object]:
    yield probe
    probe.phone.inject(faults.Clear())
    probe.connect()


def state(phone) -> str:
    lines = phone.adb.run("devices").stdout.splitlines()
    return next((line.split("\t")[1] for line in lines if phone.phone.serial in line), "absent")


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen in time")


def test_an_unauthorized_host_is_shown_as_such(victim) -> None:
    victim.phone.inject(faults.Unauthorized())

    def refused() -> bool:
        victim.adb.run("connect", victim.phone.serial)
        return state(victim) == "unauthorized"

    wait_for(refused)


def test_a_host_trusted_at_first_use_signs_from_then_on(victim) -> None:
    victim.phone.inject(faults.Unauthorized(tofu=True))
    for _ in range(2):
        victim.connect()
        assert victim.shell("echo in") == "in"


def test_an_offline_phone_does_not_answer(victim) -> None:
    victim.phone.inject(faults.Offline())
    wait_for(lambda: state(victim) in ("offline", "absent"))
    victim.phone.inject(faults.Clear())
    victim.connect()
    assert victim.shell("echo back") == "back"


def test_a_push_is_cut_at_the_byte_that_was_named(victim, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(8 << 20))
    victim.phone.inject(faults.Disconnect(push_bytes=3 << 20))
    done = victim.run("push", file, "/data/local/tmp/cut")
    assert done.returncode != 0
    victim.connect()
    assert victim.run("shell", "test -e /data/local/tmp/cut").returncode != 0
    assert victim.run("push", file, "/data/local/tmp/cut").returncode == 0
    victim.shell("rm /data/local/tmp/cut")


def test_a_full_disk_fails_the_push_and_leaves_nothing(victim, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(4 << 20))
    victim.phone.inject(faults.FullDisk(free_bytes=1 << 20))
    done = victim.run("push", file, "/data/local/tmp/full")
    assert done.returncode != 0
    assert "No space left on device" in done.stdout + done.stderr
    assert victim.run("shell", "test -e /data/local/tmp/full").returncode != 0


def test_a_full_disk_refuses_an_app(victim, probe_apk: Path) -> None:
    victim.phone.inject(faults.FullDisk(free_bytes=10))
    done = victim.run("install", "-r", probe_apk)
    assert "INSTALL_FAILED_INSUFFICIENT_STORAGE" in done.stdout + done.stderr


def test_an_app_crashes_after_so_many_log_lines(victim) -> None:
    victim.run("logcat", "-c")
    victim.phone.inject(faults.CrashApp("dev.probe", after_log_lines=300))
    command = "am instrument -w -r -e verb log -e count 200000 dev.probe/.Probe"
    done = victim.run("shell", command, timeout=60)
    assert "shortMsg=Process crashed." in done.stdout


def test_lost_log_lines_are_missing_for_every_reader(victim) -> None:
    victim.run("logcat", "-c")
    victim.phone.inject(faults.LoseLog(every=10))
    victim.run("shell", "am instrument -w -r -e verb log -e count 100 dev.probe/.Probe")

    def count() -> int:
        text = victim.run("logcat", "-d", "-v", "raw", "-s", "ProbeLog").stdout
        return sum(line.startswith("line") for line in text.splitlines())

    wait_for(lambda: count() >= 85)
    time.sleep(0.5)
    assert count() <= 92


def test_a_restart_of_adbd_ends_shells_but_not_apps(victim) -> None:
    victim.shell("am start -n dev.probe/.ProbeActivity")
    wait_for(lambda: victim.shell("pidof dev.probe"))
    before = victim.shell("pidof dev.probe")
    victim.phone.inject(faults.RestartAdbd())
    time.sleep(1)
    victim.connect()
    assert victim.shell("pidof dev.probe") == before
    victim.shell("am force-stop dev.probe")


def test_a_reboot_ends_logcat_and_gives_a_new_boot_id(victim) -> None:
    read_boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = victim.shell(read_boot_id)
    victim.shell("echo kept > /data/local/tmp/kept")
    victim.shell("log before")
    argv = [str(victim.adb.program), "-P", str(victim.adb.port), "-s", victim.phone.serial]
    reader = subprocess.Popen(
        [*argv, "logcat", "-v", "raw"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=victim.adb.environment,
        text=True,
    )
    assert reader.stdout is not None and reader.stdout.readline()  # It reads by now.
    victim.run("reboot")
    reader.communicate(timeout=60)

    def came_back() -> bool:
        victim.connect()
        return victim.shell(read_boot_id) not in ("", before)

    wait_for(came_back)
    assert victim.shell("cat /data/local/tmp/kept") == "kept"
    assert victim.shell("pm path dev.probe")


def test_heat_is_told_by_the_thermal_service(victim) -> None:
    victim.phone.inject(faults.Thermal(status=3))
    assert "Thermal Status: 3" in victim.shell("dumpsys thermalservice")


def test_an_app_that_takes_more_than_the_phone_has_is_killed(
    start_adb, probe_apk: Path, tmp_path: Path
) -> None:
    small = lifecycle.start(Abi.X86_64, tmp_path, memory_mib=96)
    try:
        adb = start_adb("adbutils")
        adb.run("connect", small.serial)
        installed = adb.run("install", probe_apk, serial=small.serial)
        assert installed.returncode == 0, installed.stdout + installed.stderr
        assert (
            "MemTotal:          98304 kB"
            in adb.run("shell", "cat /proc/meminfo", serial=small.serial).stdout
        )
        command = "am instrument -w -r -e verb allocate -e mib 18 dev.probe/.Probe"
        done = adb.run("shell", command, serial=small.serial)
        assert "shortMsg=Process crashed." in done.stdout
        log = adb.run("logcat", "-d", "-s", "lowmemorykiller", serial=small.serial).stdout
        assert "Kill 'dev.probe'" in log
    finally:
        small.stop()
