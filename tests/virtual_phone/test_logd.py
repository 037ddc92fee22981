"""The log: bounded rings, Android's formats, and the options of logcat."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual_phone import log_socket
from harness.virtual_phone.log_format import FORMATS, MODIFIERS, LogFormat, Renderer
from harness.virtual_phone.logcat_options import BadOption, LogcatOptions
from harness.virtual_phone.logd import MAX_PAYLOAD, Buffer, Entry, Logd, LogLoss, Priority

WHEN = 1_700_000_000_123_456_789
# What logcat's parsers on the host understand (-v threadtime -v epoch -v usec).
THREADTIME = re.compile(rb"^\s*(\d+\.\d+)\s+(\d+)\s+(\d+)\s([VDIWEFS])\s(.*?)\s*:\s(.*)$")


def entry(message: bytes = b"hello", tag: bytes = b"Tag", **changes: int) -> Entry:
    values = {"pid": 123, "tid": 456, "uid": 10100, "time_ns": WHEN, "sequence": 1, **changes}
    return Entry(Buffer.MAIN, Priority.INFO, tag, message, **values)


def write(logd: Logd, tag: bytes, message: bytes, priority: Priority = Priority.INFO) -> None:
    logd.write(Buffer.MAIN, priority, tag, message, pid=1, tid=1, uid=2000)


@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=6000)), max_size=60))
def test_a_ring_never_outgrows_its_size_and_keeps_the_newest(
    entries: list[tuple[bytes, bytes]],
) -> None:
    logd = Logd(ring_bytes=16 << 10)
    for tag, message in entries:
        write(logd, tag, message)
    held = logd.entries([Buffer.MAIN])
    assert sum(each.size for each in held) == logd.used[Buffer.MAIN] <= 16 << 10
    assert len(held) + logd.pruned[Buffer.MAIN] == len(entries)
    kept = [(tag, message[: MAX_PAYLOAD - 3 - len(tag)]) for tag, message in entries]
    assert [(each.tag, each.message) for each in held] == kept[len(kept) - len(held) :]


def test_a_reader_gets_what_comes_and_then_the_unexpected_end() -> None:
    logd = Logd()
    seen: list[Entry | None] = []
    logd.attach(seen.append)
    write(logd, b"A", b"one")
    logd.end()
    assert [each and each.message for each in seen] == [b"one", None]


def test_lost_entries_are_counted_down_or_come_again_and_again() -> None:
    loss = LogLoss(drop=2)
    assert [loss.swallows() for _ in range(4)] == [True, True, False, False]
    loss = LogLoss(every=3)
    assert [loss.swallows() for _ in range(6)] == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("brief", b"I/Tag     (  123): hello\n"),
        ("process", b"I(  123) hello  (Tag)\n"),
        ("tag", b"I/Tag     : hello\n"),
        ("thread", b"I(  123:  456) hello\n"),
        ("raw", b"hello\n"),
        ("time", b"11-14 22:13:20.123 I/Tag     (  123): hello\n"),
        ("threadtime", b"11-14 22:13:20.123   123   456 I Tag     : hello\n"),
        ("long", b"[ 11-14 22:13:20.123   123:  456 I/Tag      ]\nhello\n\n"),
    ],
)
def test_formats_are_those_of_android(form: str, expected: bytes) -> None:
    assert LogFormat(form).render(entry()) == expected


def test_modifiers_add_up() -> None:
    form = LogFormat()
    for words in ("threadtime", "epoch", "usec"):
        form.add(words)
    line = form.render(entry())
    assert line == b"         1700000000.123456   123   456 I Tag     : hello\n"
    found = THREADTIME.match(line.rstrip(b"\n"))
    assert found is not None and found.group(5, 6) == (b"Tag", b"hello")


def test_each_line_of_a_message_has_the_header() -> None:
    lines = LogFormat("brief").render(entry(b"one\ntwo\n"))
    assert lines == b"I/Tag     (  123): one\nI/Tag     (  123): two\n"


@given(st.sampled_from(FORMATS), st.sets(st.sampled_from(MODIFIERS)), st.binary(max_size=80))
def test_every_message_can_be_printed_in_every_format(
    form: str, modifiers: set[str], message: bytes
) -> None:
    text = LogFormat(form, modifiers).render(entry(message))
    assert text.endswith(b"\n") or "color" in modifiers


def test_the_beginning_of_a_buffer_is_marked_once() -> None:
    renderer = Renderer(LogFormat("raw"), dividers=False)
    text = b"".join(renderer.render(entry()) for _ in range(2))
    assert text == b"--------- beginning of main\nhello\nhello\n"


def wants(arguments: list[str], tag: bytes, priority: Priority) -> bool:
    options = LogcatOptions.parse(arguments)
    return options.wants(Entry(Buffer.MAIN, priority, tag, b"x", 1, 1, 1, WHEN, 1))


def test_filters_name_tags_and_levels() -> None:
    assert wants(["LMX:V", "*:S"], b"LMX", Priority.VERBOSE)
    assert not wants(["LMX:V", "*:S"], b"Other", Priority.FATAL)
    assert wants(["-s", "LMX"], b"LMX", Priority.DEBUG)
    assert not wants(["*:W"], b"Any", Priority.INFO)
    assert wants(["*:W"], b"Any", Priority.ERROR)


def test_options_are_read_in_every_spelling() -> None:
    options = LogcatOptions.parse(
        ["-b", "main,crash", "-vepoch", "-v", "usec", "-T", "5", "--pid=12", "-m3", "-e", "a.b"]
    )
    assert options.buffers == {Buffer.MAIN, Buffer.CRASH}
    assert options.form.modifiers == {"epoch", "usec"}
    assert (options.tail, options.pid, options.max_count, options.dump) == (5, 12, 3, False)
    assert options.regex is not None and options.regex.search(b"axb")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("2023-11-14 22:13:20.000001", 1_700_000_000_000_001_000),
    ],
)
def test_a_time_to_begin_from_is_read(text: str, nanoseconds: int) -> None:
    assert LogcatOptions.parse(["-T", text]).since_ns == nanoseconds


@pytest.mark.parametrize(
    "arguments",
    [
        ["-b", "nonsense"],
        ["-v", "nonsense"],
        ["-T", "yesterday"],
        ["-m", "0"],
        ["-m", "x"],
        ["-G", "12Q"],
        ["-e", "("],
        ["-b"],
        ["--nonsense"],
        ["-Q"],
        ["Tag:Q"],
    ],
)
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(BadOption):
        LogcatOptions.parse(arguments)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_command_line_is_read_or_refused(arguments: list[str]) -> None:
    try:
        options = LogcatOptions.parse(arguments)
    except BadOption:
        return
    assert options.buffers


@given(st.binary(max_size=60))
def test_any_bytes_are_a_log_record_or_none(record: bytes) -> None:
    parsed = log_socket.parse(record)
    assert parsed is None or isinstance(parsed[0], Buffer)
