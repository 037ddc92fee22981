"""Which device is meant."""

from __future__ import annotations

import pytest

from harness.device.discover import Attached, choose
from harness.errors import DeviceError, UsageError

PIXEL = Attached("37021", "device", "Pixel 8")
VIRTUAL = Attached("127.0.0.1:6555", "device", "Virtual Phone")
LOCKED = Attached("R58M", "unauthorized", "")


@pytest.fixture(autouse=True)
def _no_serial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)


def test_the_only_ready_device_is_meant() -> None:
    assert choose([LOCKED, PIXEL]) is PIXEL


def test_a_serial_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", PIXEL.serial)
    assert choose([PIXEL, VIRTUAL]) is PIXEL
    assert choose([PIXEL, VIRTUAL], VIRTUAL.serial) is VIRTUAL


def test_several_devices_are_ambiguous_and_listed() -> None:
    with pytest.raises(UsageError) as raised:
        choose([PIXEL, VIRTUAL])
    assert "Pixel 8" in raised.value.cause and VIRTUAL.serial in raised.value.cause
    assert "-s 37021" in raised.value.remedy


def test_an_unknown_serial_lists_what_is_there() -> None:
    with pytest.raises(DeviceError) as raised:
        choose([PIXEL], "nope")
    assert PIXEL.serial in raised.value.cause


def test_a_device_that_is_not_ready_has_a_remedy() -> None:
    with pytest.raises(DeviceError, match="unauthorized") as raised:
        choose([LOCKED])
    assert "accept the key" in raised.value.remedy


def test_no_device_at_all_suggests_the_virtual_phone() -> None:
    with pytest.raises(DeviceError) as raised:
        choose([])
    assert "harness phone start" in raised.value.remedy
