"""What the phone says of itself: properties, /proc, condition, faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tools import qemu
from harness.types import Abi
from harness.virtual_phone import auth, faults, kernel_facts, properties
from harness.virtual_phone.auth import AuthMode, HostKeys
from harness.virtual_phone.condition import Condition
from harness.virtual_phone.faults import Fault

SDOT = 1 << 20


def test_the_arm64_processor_has_the_features_of_its_bits() -> None:
    text = kernel_facts.arm64_cpuinfo(2, hwcap=0b11 | SDOT, hwcap2=1 << 13)
    assert text.count("processor\t:") == 2
    features = text.split("Features\t: ")[1].splitlines()[0].split()
    assert features == ["fp", "asimd", "asimddp", "i8mm"]


@given(st.integers(64, 1 << 16), st.integers(0, 1 << 28))
def test_memory_adds_up(total_mib: int, apps_kib: int) -> None:
    rows = dict(line.split(":") for line in kernel_facts.meminfo(total_mib, apps_kib).splitlines())
    values = {name: int(text.split()[0]) for name, text in rows.items()}
    assert values["MemTotal"] == total_mib * 1024
    assert 0 <= values["MemFree"] <= values["MemAvailable"] <= values["MemTotal"]


def test_a_phone_says_that_it_is_virtual() -> None:
    found = properties.defaults(Abi.ARM64, "test", "S", "1")
    assert found["ro.harness.virtual"] == "1"
    assert found["ro.product.cpu.abi"] == "arm64-v8a"


@pytest.mark.parametrize(
    ("name", "value"),
    [("ro.build.type", "eng"), ("ro.new", "x"), ("bad name", "x"), ("debug.x", "x" * 92)],
)
def test_setprop_refuses_what_a_phone_refuses(name: str, value: str) -> None:
    assert properties.refusal({"ro.build.type": "user"}, name, value)


def test_setprop_takes_a_debug_property() -> None:
    assert properties.refusal({}, "debug.test", "1") == ""


def test_heat_shows_in_status_and_skin_temperature() -> None:
    condition = Condition()
    assert "Thermal Status: 0" in condition.dump_thermal()
    condition.thermal_status = 3
    text = condition.dump_thermal()
    assert "Thermal Status: 3" in text
    assert "Temperature{mValue=45.5, mType=3, mName=skin, mStatus=3}" in text


def test_an_overridden_battery_says_so() -> None:
    condition = Condition()
    assert "UPDATES STOPPED" not in condition.dump_battery()
    condition.unplug()
    assert "UPDATES STOPPED" in condition.dump_battery()
    assert "USB powered: false" in condition.dump_battery()


@pytest.mark.parametrize(
    "fault",
    [
        faults.Clear(),
        faults.Unauthorized(tofu=True),
        faults.Offline(),
        faults.Disconnect(push_bytes=5),
        faults.FullDisk(free_bytes=7),
        faults.CrashApp("dev.probe", after_log_lines=3, signal=11),
        faults.LoseLog(drop=1, every=2),
        faults.RestartAdbd(),
        faults.Reboot(),
        faults.Thermal(4),
    ],
)
def test_a_fault_survives_its_way_as_json(fault: Fault) -> None:
    assert faults.from_document(faults.to_document(fault)) == fault


@pytest.mark.parametrize("document", [{}, {"fault": "Fire"}, {"fault": "Thermal", "heat": 1}])
def test_an_unknown_fault_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        faults.from_document(document)


@given(st.binary(max_size=800), st.binary(min_size=20, max_size=20), st.binary(max_size=256))
def test_no_bytes_pass_for_a_trusted_signature(key: bytes, token: bytes, signature: bytes) -> None:
    assert not auth.signed_by(key, token, signature)


def test_a_host_needs_a_key_unless_all_are_accepted() -> None:
    assert not HostKeys().required
    assert HostKeys(AuthMode.TOFU).required
    assert not HostKeys(AuthMode.TOFU).offer(b"no key")
    assert not HostKeys(AuthMode.DENY).offer(b"any key")


def test_the_version_of_qemu_is_read() -> None:
    text = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright"
    assert qemu.read_version(text) == (7, 2, 22)
    assert qemu.read_version("qemu-aarch64 version 10.0 (x)") == (10, 0)
    assert qemu.read_version("something else") is None
