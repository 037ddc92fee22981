"""LMX1: what arrives is what was sent, and nothing is lost unnoticed."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import lmx

RUN = "00c0ffee"

values = (
    st.none()
    | st.integers(-(2**63), 2**63)
    | st.text(max_size=8)
    | st.lists(st.integers(0, 150_000), max_size=8)
    | st.integers(0, 600).map(lambda length: "é" * length)
)
records = st.dictionaries(st.text(max_size=4), values, max_size=3).map(
    lambda record: {**record, "t": "memory"}
)


def whole_run(middle: list[dict[str, Any]]) -> tuple[list[list[str]], bytes]:
    """The lines of each record of a run, and the device's file."""
    body: list[dict[str, Any]] = [{"t": "begin", "proto": 1, "run": RUN}, *middle]
    text = "".join(lmx.compact(record) + "\n" for record in body)
    end = {
        "t": "end",
        "records": len(body),
        "sha256": hashlib.sha256(text.encode("ascii")).hexdigest(),
    }
    lines = [lmx.encode(RUN, number, record) for number, record in enumerate([*body, end])]
    return lines, (text + lmx.compact(end) + "\n").encode("ascii")


@given(st.integers(0, 10**9 - 1), records)
def test_a_record_survives_its_lines(sequence: int, record: dict[str, Any]) -> None:
    lines = lmx.encode(RUN, sequence, record)
    assert all(len(line.encode("ascii")) <= lmx.MAX_LINE for line in lines)
    collector = lmx.Collector(RUN)
    completed = [collector.feed(line) for line in lines]
    assert completed == [None] * (len(lines) - 1) + [record]
    assert collector.damaged == 0


@given(records, st.data())
def test_a_changed_line_is_damaged(record: dict[str, Any], data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(lmx.encode(RUN, 3, record)))
    position = data.draw(st.integers(len(lmx.PREFIX), len(line) - 1))
    other = data.draw(st.characters().filter(lambda char: char != line[position]))
    with pytest.raises(lmx.LmxError):
        lmx.parse(line[:position] + other + line[position + 1 :])


@given(records, st.data())
def test_a_cut_line_is_damaged(record: dict[str, Any], data: st.DataObject) -> None:
    line = lmx.encode(RUN, 3, record)[0]
    with pytest.raises(lmx.LmxError):
        lmx.parse(line[: data.draw(st.integers(len(lmx.PREFIX), len(line) - 1))])


@given(st.text())
def test_other_messages_are_no_frames(text: str) -> None:
    assert text.startswith(lmx.PREFIX) or lmx.parse(text) is None


@given(st.lists(records, max_size=5), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(
    middle: list[dict[str, Any]], shuffle: random.Random
) -> None:
    lines, _ = whole_run(middle)
    flat = [line for record in lines for line in record] * 2
    shuffle.shuffle(flat)
    collector = lmx.Collector(RUN)
    for line in flat:
        collector.feed(line)
    assert collector.gap() == ""
    assert collector.records()[1:-1] == middle


@given(st.lists(records, max_size=5), st.data())
def test_every_loss_is_seen_and_repaired(middle: list[dict[str, Any]], data: st.DataObject) -> None:
    lines, file = whole_run(middle)
    flat = [line for record in lines for line in record]
    lost = data.draw(st.sets(st.integers(0, len(flat) - 1), min_size=1))
    collector = lmx.Collector(RUN)
    for number, line in enumerate(flat):
        if number not in lost:
            collector.feed(line)
    assert collector.gap() != ""
    added = collector.repair(file)
    assert added == collector.repaired > 0
    assert collector.gap() == ""
    assert collector.records()[1:-1] == middle


@given(st.lists(records, max_size=4), st.data())
def test_a_damaged_file_repairs_nothing(middle: list[dict[str, Any]], data: st.DataObject) -> None:
    _, file = whole_run(middle)
    position = data.draw(st.integers(0, len(file) - 1))
    cut = data.draw(st.booleans())
    damaged = (
        file[:position]
        if cut
        else file[:position] + bytes([file[position] ^ 1]) + file[position + 1 :]
    )
    collector = lmx.Collector(RUN)
    with pytest.raises(lmx.LmxError):
        collector.repair(damaged)
    assert collector.received == 0


def test_a_file_that_contradicts_logcat_is_refused() -> None:
    lines, _ = whole_run([{"t": "memory", "pss_kb": 1}])
    _, other = whole_run([{"t": "memory", "pss_kb": 2}])
    collector = lmx.Collector(RUN)
    for line in lines[1]:
        collector.feed(line)
    with pytest.raises(lmx.LmxError, match="record 1 differs"):
        collector.repair(other)


def test_another_run_is_not_taken() -> None:
    collector = lmx.Collector(RUN)
    for line in lmx.encode("deadbeef", 0, {"t": "begin"}):
        assert collector.feed(line) is None
    assert collector.gap() == "no record arrived" and collector.damaged == 0


def test_a_run_that_was_killed_has_no_end() -> None:
    lines, _ = whole_run([{"t": "memory"}])
    collector = lmx.Collector(RUN)
    for line in lines[0] + lines[1]:
        collector.feed(line)
    assert "end record is missing" in collector.gap()


BEGIN = {"t": "begin", "proto": 1, "run": RUN}
END = {"t": "end"}


def tokens(first: int, ids: list[int], stamps: list[int]) -> dict[str, Any]:
    return {"t": "tokens", "step": "p1", "first": first, "ids": ids, "ns": stamps}


def test_a_consistent_run_passes_the_check() -> None:
    finish = {"t": "finish", "step": "p1", "tokens": 3}
    lmx.check(RUN, [BEGIN, tokens(0, [7, 8], [10, 20]), tokens(2, [9], [20]), finish, END])


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        ([tokens(1, [7], [10])], "begin at 1"),
        ([tokens(0, [7, 8], [10])], "two equal lists"),
        ([tokens(0, [7, 8], [20, 10])], "go back"),
        ([tokens(0, [7], [20]), tokens(1, [8], [10])], "go back"),
        ([tokens(0, [7], [1]), {"t": "finish", "step": "p1", "tokens": 2}], "1 were timed"),
    ],
)
def test_an_inconsistent_run_fails_the_check(middle: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(lmx.LmxError, match=message):
        lmx.check(RUN, [BEGIN, *middle, END])


@pytest.mark.parametrize(
    "records_of_run",
    [[], [BEGIN], [END], [{**BEGIN, "proto": 2}, END], [{**BEGIN, "run": "deadbeef"}, END]],
)
def test_a_run_must_begin_and_end(records_of_run: list[dict[str, Any]]) -> None:
    with pytest.raises(lmx.LmxError):
        lmx.check(RUN, records_of_run)
