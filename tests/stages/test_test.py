"""The test stage runs pytest in a process of its own and tells each outcome."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import resources
from harness.errors import DeviceError, TestsFailed
from harness.stages.test import TestReport, run_device_tests, suites_hash
from harness.types import Abi, Device, Installation, Libc, ModelPackage

INSTALLATION = Installation(
    Device("serial-1", "Pixel", Abi.ARM64, Libc.GLIBC, 34, 1 << 32, "f", True),
    "dev.alc.harness",
    "0" * 64,
    ModelPackage(Path("/nowhere"), "key", "tiny", "q4f16_gguf", (Abi.ARM64,), 1),
    "/data/local/tmp/harness/models/key.json",
    0,
)


def suite(folder: Path, text: str) -> Path:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (folder / "test_it.py").write_text(text)
    return folder


def test_each_outcome_names_the_device(tmp_path: Path) -> None:
    text = """
import pytest
def test_one(model, record_property):
    assert model.name == "tiny"
    record_property("note", "so small a lead may turn")
def test_two(golden): pass
"""
    report = run_device_tests(INSTALLATION, golden=None, suites=suite(tmp_path, text))
    first, second = report.outcomes
    assert first.test.endswith("::test_one") and first.outcome == "passed"
    assert first.device == "virtual phone (serial-1)"
    assert first.notes == ("so small a lead may turn",)
    assert second.outcome == "skipped" and second.reason == "tiny has no golden.json"
    assert report.count("passed") == 1 and report.count("failed") == 0


def test_a_failure_is_exit_code_six_with_its_reason(tmp_path: Path) -> None:
    text = "def test_one(): pass\ndef test_two(): assert 6 * 9 == 42, 'the wrong question'\n"
    with pytest.raises(TestsFailed, match="1 of 2 tests") as raised:
        run_device_tests(INSTALLATION, golden=None, suites=suite(tmp_path, text))
    assert raised.value.exit_code == 6
    assert "test_two: AssertionError: the wrong question" in raised.value.cause


def test_a_fixture_that_fails_is_a_failure(tmp_path: Path) -> None:
    text = """
import pytest
@pytest.fixture
def broken(): raise RuntimeError("no phone")
def test_one(broken): pass
"""
    with pytest.raises(TestsFailed) as raised:
        run_device_tests(INSTALLATION, golden=None, suites=suite(tmp_path, text))
    assert "no phone" in raised.value.cause


def test_tests_that_fail_for_one_reason_are_told_together(tmp_path: Path) -> None:
    text = """
import pytest
@pytest.fixture
def broken(): raise RuntimeError("no phone")
def test_one(broken): pass
def test_two(broken): pass
"""
    with pytest.raises(TestsFailed) as raised:
        run_device_tests(INSTALLATION, golden=None, suites=suite(tmp_path, text))
    assert raised.value.cause == "test_one and 1 more: RuntimeError: no phone"


@pytest.mark.parametrize("text", ["", "import nothing_of_that_name\n"])
def test_tests_that_cannot_run_are_no_success(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeviceError, match="did not run"):
        run_device_tests(INSTALLATION, golden=None, suites=suite(tmp_path, text))


def test_a_changed_suite_has_another_hash(tmp_path: Path) -> None:
    folder = suite(tmp_path, "def test_one(): pass\n")
    before = suites_hash(None, folder)
    golden = tmp_path / "golden.json"
    golden.write_text("{}")
    assert suites_hash(golden, folder) != before
    (folder / "test_it.py").write_text("def test_one(): assert True\n")
    assert suites_hash(None, folder) != before


SECOND = 1_000_000_000
QUICK = [
    {"t": "load", "start_ns": 0, "end_ns": SECOND},
    {"t": "prefill", "end_ns": 2 * SECOND},
    {"t": "tokens", "ns": [2.05 * SECOND, 2.1 * SECOND, 2.15 * SECOND]},
]
SLOW = [
    {"t": "load", "start_ns": 0, "end_ns": 4 * SECOND},
    {"t": "prefill", "end_ns": 5 * SECOND},
    {"t": "tokens", "ns": [5.2 * SECOND, 5.4 * SECOND]},
]


LIMITS_CONFTEST = """
import json
from pathlib import Path
from types import SimpleNamespace
import pytest
told = json.loads(Path(__file__).with_name("told.json").read_text())
@pytest.fixture(scope="session")
def device():
    return SimpleNamespace(virtual=told["virtual"])
@pytest.fixture(scope="session")
def app():
    reply = SimpleNamespace(records=told["records"], result={"memory": told["memory"]})
    return SimpleNamespace(generate=lambda steps: reply)
"""


def limits(
    folder: Path, records: list[dict[str, Any]], *, virtual: bool = False, pss_mib: int = 1900
) -> TestReport:
    """What the suite of limits says of an app with these times and this memory."""
    package = replace(INSTALLATION.package, path=folder)
    suite(folder, (resources.path("device-tests") / "test_limits.py").read_text())
    (folder / "package.json").write_text('{"parameters": 2614341888}')
    told = {"virtual": virtual, "records": records, "memory": {"pss_peak_kb": pss_mib << 10}}
    (folder / "told.json").write_text(json.dumps(told))
    (folder / "conftest.py").write_text(LIMITS_CONFTEST)
    return run_device_tests(replace(INSTALLATION, package=package), golden=None, suites=folder)


def test_a_phone_inside_the_limits_passes_them(tmp_path: Path) -> None:
    report = limits(tmp_path, QUICK)
    assert [one.outcome for one in report.outcomes] == ["passed"] * 4
    assert not any(one.notes for one in report.outcomes)


def test_a_phone_fails_each_limit_that_it_misses(tmp_path: Path) -> None:
    with pytest.raises(TestsFailed, match="4 of 4 tests") as raised:
        limits(tmp_path, SLOW, pss_mib=2100)
    for words in (
        "first token after prefill, ms 200.0, limit 100",
        "ms a decoded token 200.0, limit 100",
        "load to first token, ms 5200.0, limit 5000",
        "test_the_app_stays_inside_its_memory",
    ):
        assert words in raised.value.cause


def test_a_virtual_phone_is_told_its_speed_and_fails_for_its_memory_only(tmp_path: Path) -> None:
    report = limits(tmp_path, SLOW, virtual=True)
    assert report.count("passed") == 4
    notes = [note for one in report.outcomes for note in one.notes]
    assert len(notes) == 3 and notes[0].startswith("first token after prefill, ms 200.0, limit 100")
    with pytest.raises(TestsFailed, match="1 of 4 tests"):
        limits(tmp_path, SLOW, virtual=True, pss_mib=2100)
