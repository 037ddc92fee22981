"""One user of a device at a time, on this host and on the device.

The link here runs the lock's own script in a shell of this machine, on a folder that stands for
the device's storage.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.device import lock
from harness.errors import DeviceError


class Command:
    """A command of this machine as a stream of lines."""

    exit_code = None

    def __init__(self, argv: Sequence[str]) -> None:
        self.child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def lines(self, timeout: float | None = None) -> Iterator[str]:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            yield line.rstrip("\n")

    def close(self) -> None:
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        self.child.wait()
        self.child.stdout.close()


class ShellLink:
    """The part of a link that a lock needs."""

    def __init__(self, folder: Path, serial: str = "serial-1") -> None:
        self.folder = folder
        self.serial = serial
        self.commands: list[Command] = []

    @contextlib.contextmanager
    def stream(self, argv: Sequence[str]) -> Iterator[Command]:
        local = [word.replace("/data/local/tmp", str(self.folder)) for word in argv]
        command = Command(local)
        self.commands.append(command)
        try:
            yield command
        finally:
            command.close()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.1)


def hold(link: Any, timeout: float = 5.0) -> contextlib.AbstractContextManager[None]:
    return lock.hold(link, timeout=timeout)


def test_a_lock_leaves_nothing_on_the_device(tmp_path: Path) -> None:
    link = ShellLink(tmp_path)
    with hold(link):
        assert (tmp_path / "harness/lock/pid").is_file()
    assert not (tmp_path / "harness/lock").exists()


def test_the_second_user_waits_and_says_for_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def second() -> None:
        with hold(ShellLink(tmp_path)):
            order.append("second")

    with hold(ShellLink(tmp_path)):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.6)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert "waiting for serial-1: `" in capsys.readouterr().err


def test_another_host_is_kept_out_by_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(ShellLink(tmp_path)):
        monkeypatch.setattr(lock, "cache_folder", lambda: tmp_path / "another host's cache")
        with pytest.raises(DeviceError, match="in use") as raised, hold(ShellLink(tmp_path), 0.3):
            pytest.fail("two have the lock")
    assert "process" in raised.value.cause and raised.value.exit_code == 5


def test_two_devices_do_not_wait_for_each_other(tmp_path: Path) -> None:
    one, two = ShellLink(tmp_path / "1"), ShellLink(tmp_path / "2", "serial-2")
    for link in (one, two):
        link.folder.mkdir()
    with hold(one), hold(two, 0.0):
        pass


@pytest.mark.parametrize("left", [{"pid": "999999999"}, {"boot": "another"}, {}])
def test_the_lock_of_a_dead_user_is_taken_over(tmp_path: Path, left: dict[str, str]) -> None:
    folder = tmp_path / "harness/lock"
    folder.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for name, text in ({"pid": "1", "boot": boot, "owner": "who"} | left if left else {}).items():
        (folder / name).write_text(text + "\n")
    with hold(ShellLink(tmp_path), 0.0):
        pass
    assert not folder.exists()


def test_a_device_that_cannot_be_locked_says_why(tmp_path: Path) -> None:
    (tmp_path / "harness").write_text("a file where a folder must be")
    with pytest.raises(DeviceError, match="cannot be locked"), hold(ShellLink(tmp_path), 0):
        pytest.fail("it has the lock")
