"""Parsers of what devices print, on transcripts and on made-up text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device import discover, instrumentation, logcat, model_store, state
from harness.errors import DeviceError
from harness.types import Abi, Libc

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


def transcript(name: str) -> str:
    return (TRANSCRIPTS / name).read_text(encoding="utf-8")


def outcome_of(name: str, *, crlf: bool = False) -> instrumentation.Outcome:
    parser = instrumentation.Parser()
    for line in transcript(name).splitlines():
        parser.feed(line + ("\r\n" if crlf else ""))
    return parser.outcome()


@pytest.mark.parametrize("crlf", [False, True])
def test_an_instrumentation_that_finished_has_no_problem(crlf: bool) -> None:
    outcome = outcome_of("instrument-ok.txt", crlf=crlf)
    assert outcome.problem == "" and outcome.code == -1
    assert outcome.results["ok"] == "true"
    assert outcome.results["result"].endswith("/00c0ffee/result.json")


def test_status_values_may_span_lines() -> None:
    parser = instrumentation.Parser()
    lines = transcript("instrument-ok.txt").splitlines()
    statuses = [status for line in lines if (status := parser.feed(line)) is not None]
    assert [status.values["harness"] for status in statuses] == [
        "loading the model",
        "generating\ntwo lines",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("instrument-crash.txt", "Process crashed."),
        ("instrument-native-crash.txt", "Segmentation fault"),
        ("instrument-exception.txt", "the model is closed\nat a line of its own"),
        ("instrument-missing.txt", "Unable to find instrumentation info"),
        ("instrument-aborted.txt", "System has crashed"),
    ],
)
def test_an_instrumentation_that_failed_says_why(name: str, words: str) -> None:
    assert words in outcome_of(name).problem


@given(st.integers(0, 7))
def test_an_instrumentation_that_broke_off_has_not_passed(kept: int) -> None:
    parser = instrumentation.Parser()
    for line in transcript("instrument-ok.txt").splitlines()[:kept]:
        parser.feed(line)
    assert "ends before" in parser.outcome().problem


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"))))
def test_noise_is_no_proof(lines: list[str]) -> None:
    parser = instrumentation.Parser()
    for line in lines:
        parser.feed(line)
    assert parser.outcome().problem != ""


def test_logcat_lines_are_read_and_dividers_are_not() -> None:
    lines = transcript("logcat-epoch.txt").splitlines()
    entries = [entry for line in lines if (entry := logcat.parse(line + "\r\n")) is not None]
    assert len(entries) == 8
    assert entries[0] == logcat.Entry(
        1795234631525437,
        1234,
        1250,
        "I",
        "LMX",
        'LMX1 00c0ffee 0 1/1 deadbeef {"t":"begin"}',
    )
    assert entries[2].tag == "vphone.hb" and entries[2].message == "tick: 1 of 2"
    assert entries[5].message == ""


@given(
    st.integers(0, 2**33),
    st.integers(0, 999_999),
    st.integers(0, 99_999),
    st.sampled_from("VDIWEF"),
    st.from_regex(r"[A-Za-z0-9_.]{1,30}", fullmatch=True),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f\x85")),
)
def test_a_logcat_line_survives_its_format(
    seconds: int, micros: int, pid: int, priority: str, tag: str, message: str
) -> None:
    line = f"{seconds:19d}.{micros:06d} {pid:5d} {pid:5d} {priority} {tag:<8}: {message}\n"
    time_us = seconds * 1_000_000 + micros
    assert logcat.parse(line) == logcat.Entry(time_us, pid, pid, priority, tag, message)


@given(st.text())
def test_no_text_upsets_the_logcat_parser(text: str) -> None:
    logcat.parse(text)


def test_devices_are_listed_with_their_states() -> None:
    devices = discover.read_devices(transcript("adb-devices-l.txt"))
    assert [(device.serial, device.state) for device in devices] == [
        ("37021FDJH000XX", "device"),
        ("R58M123ABCD", "unauthorized"),
        ("127.0.0.1:6555", "device"),
        ("emulator-5554", "offline"),
        ("00000000", "no permissions"),
        ("ce0516054ba", "recovery"),
    ]
    assert devices[0].model == "Pixel 8 Pro" and devices[0].remedy == ""
    assert all(device.remedy for device in devices if not device.ready)


@given(st.text())
def test_no_text_upsets_the_device_list(text: str) -> None:
    discover.read_devices(text)


def test_a_phone_is_identified() -> None:
    device = discover.read_device("37021FDJH000XX", transcript("identify-phone.txt"))
    assert device.abi is Abi.ARM64 and device.libc is Libc.BIONIC
    assert device.api_level == 34 and not device.virtual
    assert device.memory_bytes == 11713564 * 1024
    assert device.model == "Pixel 8 Pro"


def test_a_virtual_phone_is_known_by_its_property() -> None:
    text = "[ro.harness.virtual]: [1]\n" + transcript("identify-phone.txt")
    device = discover.read_device("127.0.0.1:6555", text)
    assert device.virtual and device.libc is Libc.GLIBC


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[sys.boot_completed]: [1]", "[sys.boot_completed]: []", "still starting"),
        ("[arm64-v8a]", "[armeabi-v7a]", "no device that the harness can use"),
        ("MemTotal", "Total", "no device that the harness can use"),
    ],
)
def test_a_device_that_cannot_serve_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        discover.read_device("x", transcript("identify-phone.txt").replace(old, new))


def test_a_phones_state_is_read() -> None:
    now = state.parse(transcript("state-phone.txt"))
    assert now.thermal_status == 1 and not now.thermal_overridden
    assert [one.name for one in now.temperatures] == ["CPU0", "GPU", "VIRTUAL-SKIN"]
    assert now.temperatures[0].celsius == pytest.approx(62.500004)
    assert now.capped == ("4 5 6 7",)
    assert now.battery_percent == 87 and now.battery_celsius == pytest.approx(28.7)
    assert now.charging is True and now.awake is True
    assert now.airplane_mode is True and now.battery_saver is False
    assert now.memory_available_kb == 5312876
    assert now.uptime_s == pytest.approx(86431.55)
    assert now.document()["schema"] == "harness.device-state/1"


def test_what_a_phone_does_not_tell_is_none() -> None:
    now = state.parse(transcript("state-old.txt"))
    assert now.thermal_status is None and now.temperatures == () and now.clusters == ()
    assert now.battery_overridden and now.charging is False
    assert now.airplane_mode is None and now.awake is None and now.uptime_s is None


@given(st.integers(0, 60))
def test_a_state_that_broke_off_is_refused(kept: int) -> None:
    with pytest.raises(DeviceError, match="not whole"):
        state.parse("\n".join(transcript("state-phone.txt").splitlines()[:kept]))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_survey_lists_blobs_room_and_stamp(end: str) -> None:
    found = model_store.read_survey(transcript("survey.txt").replace("\n", end))
    assert found.free_bytes == 5923411 * 4096
    assert sorted(found.blobs.values()) == [586, 33554432]
    assert found.stamp.startswith("{") and found.stamp.endswith("}")


def test_a_survey_without_room_is_refused() -> None:
    with pytest.raises(DeviceError, match="free storage"):
        model_store.read_survey("sh: stat: not found\n")
