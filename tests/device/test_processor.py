"""What a device says of its processor, and of its name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device import discover, processor
from harness.errors import DeviceError

# As an arm64 kernel prints it: a line of features for each core, small and big ones.
PIXEL = """processor\t: 0
BogoMIPS\t: 49.15
Features\t: fp asimd aes asimddp i8mm bf16
CPU part\t: 0xd46

processor\t: 1
Features\t: fp asimd aes asimddp i8mm bf16 sve
"""


def cores(*values: str) -> str:
    return "".join(f"@core {value}\n" for value in values)


def core(online: object = "", capacity: object = "", frequency: object = "") -> str:
    return f"online={online} cpu_capacity={capacity} cpuinfo_max_freq={frequency}"


def test_features_are_those_that_every_core_has() -> None:
    found = processor.parse("p", PIXEL + cores(core(1), core(1)))
    assert {"asimd", "i8mm"} <= found.features and "sve" not in found.features
    text = "flags\t\t: fpu avx2 avx_vnni\n" + cores(core())
    assert processor.parse("p", text).features == {"fpu", "avx2", "avx_vnni"}


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        ([core(1, 250), core(1, 250), core(1, 600), core(1, 1024)], (4, 2)),
        ([core("", 250), core(1, 600), core(0, 1024), core(1, 1024)], (3, 2)),
        ([core(1, "", 1800000), core(1, "", 2400000), core(1, "", 2800000)], (3, 2)),
        ([core(1, 250), core(1), core(1, 1024)], (3, 3)),
        ([core(1, 0), core(1, 0)], (2, 2)),
        ([core(), core()], (2, 2)),
    ],
)
def test_a_core_is_big_as_the_engine_counts_it(cpus: list[str], expected: tuple[int, int]) -> None:
    found = processor.parse("p", PIXEL + cores(*cpus))
    assert (found.cores, found.big) == expected


@given(st.text() | st.text().map(lambda text: PIXEL + text + cores(core(1, 1024), text)))
def test_whatever_a_device_prints_is_a_processor_or_one_clear_error(text: str) -> None:
    try:
        found = processor.parse("p", text)
    except DeviceError as problem:
        described = problem.what
    else:
        described = ""
        assert 1 <= found.big <= found.cores
    assert described in ("", "p does not describe its processor")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"ro.soc.model": "SM8650", "ro.board.platform": "pineapple"}, "sm8650"),
        ({"ro.soc.model": "Tensor G3"}, "tensor-g3"),
        ({"ro.soc.model": "unknown", "ro.board.platform": "exynos9810"}, "exynos9810"),
        ({"ro.soc.model": "", "ro.hardware": "qcom"}, "qcom"),
        ({"ro.soc.model": "../../../etc/passwd"}, "etc-passwd"),
        ({"ro.soc.model": "..", "ro.hardware": "/"}, ""),
        ({"ro.soc.model": "a\0b\nc"}, "a-b-c"),
        ({"ro.soc.model": "x" * 63 + "." + "y" * 9}, "x" * 63),
        ({}, ""),
    ],
)
def test_a_processor_is_named_by_the_first_property_that_names_one(
    properties: dict[str, str], expected: str
) -> None:
    assert discover.soc(properties) == expected


@given(st.text(max_size=200), st.text(max_size=20))
def test_no_name_of_a_processor_leads_out_of_its_folder(model: str, platform: str) -> None:
    name = discover.soc({"ro.soc.model": model, "ro.board.platform": platform})
    assert re.fullmatch(r"([a-z0-9][a-z0-9._-]{0,63})?", name)
    assert PurePosixPath(name).name == name


def test_a_virtual_phones_processor_is_known_before_it_runs() -> None:
    from harness.types import Abi
    from harness.virtual_phone import properties

    for abi in Abi:
        assert discover.soc(properties.defaults(abi, "n", "s", "1")) == properties.SOC[abi]
