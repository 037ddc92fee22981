"""LMX1: timing records that cross logcat in lines which make every loss visible.

A line is `LMX1 <run> <seq> <i>/<n> <crc32> <chunk>`, ASCII, at most 960 bytes:

* `run`: 8 hexadecimal digits that the host gave the app;
* `seq`: number of the record, from 0, one more each time;
* `i/n`: which of the record's `n` chunks this is, from 1;
* `crc32`: `%08x` of zlib's CRC-32 of `<run> <seq> <i>/<n> <chunk>`;
* `chunk`: a slice of the record as compact ASCII JSON.

The device appends the same JSON, one record a line, to a file. The last record, `end`, holds the
number of records before it and the SHA-256 of the file up to it, and is sent three times. Times
inside are nanoseconds of the device's monotonic clock.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

PROTOCOL = 1
PREFIX = "LMX1 "
MAX_LINE = 960
# "LMX1 ", the run, and sequence, index, count and checksum at their widest, with their spaces.
_HEADER_ROOM = 60

_FRAME = re.compile(r"LMX1 ([0-9a-f]{8}) (\d{1,9}) (\d{1,6})/(\d{1,6}) ([0-9a-f]{8}) ([ -~]*)")

Record = Mapping[str, Any]


class LmxError(ValueError):
    """A line, file or sequence of records that LMX1 does not allow."""


@dataclass(frozen=True)
class Frame:
    """One line of LMX1: chunk `index` (from 1) of `count` of record number `sequence`."""

    run: str
    sequence: int
    index: int
    count: int
    chunk: str

    def __str__(self) -> str:
        head = f"{self.run} {self.sequence} {self.index}/{self.count}"
        checksum = zlib.crc32(f"{head} {self.chunk}".encode("ascii"))
        return f"{PREFIX}{head} {checksum:08x} {self.chunk}"


def compact(record: Record) -> str:
    """A record as it stands in the device's file: compact JSON, non-ASCII escaped."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True)


def encode(run: str, sequence: int, record: Record) -> list[str]:
    """The lines that carry `record`, each at most `MAX_LINE` bytes."""
    text = compact(record)
    room = MAX_LINE - _HEADER_ROOM
    chunks = [text[start : start + room] for start in range(0, len(text), room)]
    return [
        str(Frame(run, sequence, index, len(chunks), chunk))
        for index, chunk in enumerate(chunks, start=1)
    ]


def parse(message: str) -> Frame | None:
    """The frame that a log message carries, or None where it is no LMX1 line.

    Raises `LmxError` for a damaged line: wrong checksum, cut short, or too long.
    """
    if not message.startswith(PREFIX):
        return None
    match = _FRAME.fullmatch(message)
    if match is None or len(message) > MAX_LINE:
        raise LmxError(f"damaged LMX1 line: {message[:60]!r}")
    run, sequence, index, count, _, chunk = match.groups()
    frame = Frame(run, int(sequence), int(index), int(count), chunk)
    # Printing the frame again compares the checksum and refuses spellings such as "007".
    if str(frame) != message or not 1 <= frame.index <= frame.count:
        raise LmxError(f"damaged LMX1 line: {message[:60]!r}")
    return frame


@dataclass
class Collector:
    """Gathers one run's records from log messages in any order, repeated or lost.

    `damaged` counts lines that could not be read; a record whose lines are all damaged shows as
    a gap like a lost one.
    """

    run: str
    damaged: int = 0
    repaired: int = 0
    _chunks: dict[int, dict[int, Frame]] = field(default_factory=dict)
    _texts: dict[int, str] = field(default_factory=dict)
    _records: dict[int, Record] = field(default_factory=dict)
    _end: tuple[int, Record] | None = None

    def feed(self, message: str) -> Record | None:
        """Take one log message; the record that it completes, if it does."""
        try:
            frame = parse(message)
            if frame is None or frame.run != self.run or frame.sequence in self._texts:
                return None
            return self._add(frame)
        except LmxError:
            self.damaged += 1
            return None

    def _add(self, frame: Frame) -> Record | None:
        chunks = self._chunks.setdefault(frame.sequence, {})
        if any(other.count != frame.count for other in chunks.values()):
            raise LmxError(f"record {frame.sequence} has two chunk counts")
        chunks[frame.index] = frame
        if len(chunks) < frame.count:
            return None
        del self._chunks[frame.sequence]
        text = "".join(chunks[index].chunk for index in range(1, frame.count + 1))
        return self._store(frame.sequence, text)

    def _store(self, sequence: int, text: str) -> Record:
        record = _read_record(text)
        self._texts[sequence] = text
        self._records[sequence] = record
        if record["t"] == "end":
            self._end = (sequence, record)
        return record

    @property
    def ended(self) -> bool:
        """Whether the end record has arrived; records before it may still be missing."""
        return self._end is not None

    @property
    def received(self) -> int:
        """How many records are here."""
        return len(self._texts)

    def gap(self) -> str:
        """What is missing, in words; empty when the run is whole and its SHA-256 agrees."""
        if not self._texts:
            return "no record arrived"
        if self._end is None:
            return f"the end record is missing ({self.received} records arrived)"
        sequence, end = self._end
        lost = [number for number in range(sequence) if number not in self._texts]
        if lost:
            first = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
            return f"{len(lost)} of {sequence + 1} records are missing (number {first})"
        if len(self._texts) != sequence + 1 or end.get("records") != sequence:
            return f"the end record counts {end.get('records')} records, {sequence} stand before it"
        body = "".join(self._texts[number] + "\n" for number in range(sequence))
        if hashlib.sha256(body.encode("ascii")).hexdigest() != end.get("sha256"):
            return "the records do not have the SHA-256 that the end record gives"
        return ""

    def repair(self, data: bytes) -> int:
        """Fill the gaps from the device's file; the number of records that it added.

        Raises `LmxError` when the file is cut short, damaged, or contradicts what arrived over
        logcat; nothing is taken from such a file.
        """
        texts = _read_file(data)
        whole = Collector(self.run)
        for sequence, text in enumerate(texts):
            whole._store(sequence, text)
        if gap := whole.gap():
            raise LmxError(f"the device's file is not whole: {gap}")
        for sequence, text in self._texts.items():
            if sequence >= len(texts) or texts[sequence] != text:
                raise LmxError(f"record {sequence} differs between logcat and the device's file")
        added = len(texts) - len(self._texts)
        self._texts, self._records, self._end = whole._texts, whole._records, whole._end
        self._chunks.clear()
        self.repaired += added
        return added

    def records(self) -> list[Record]:
        """The records that are here, in order of their numbers."""
        return [self._records[sequence] for sequence in sorted(self._records)]


def check(run: str, records: Sequence[Record]) -> None:
    """Check that a whole run tells one consistent story.

    Raises `LmxError` when it does not begin with this run's `begin`, or when a step's tokens
    have gaps, go back in time, or are not as many as its `finish` says.
    """
    if not records or records[0]["t"] != "begin" or records[-1]["t"] != "end":
        raise LmxError("the records do not run from begin to end")
    begin = records[0]
    if begin.get("proto") != PROTOCOL or begin.get("run") != run:
        raise LmxError(f"begin is of run {begin.get('run')!r}, protocol {begin.get('proto')!r}")
    times: dict[str, list[int]] = {}
    for record in records:
        if record["t"] == "tokens":
            _check_tokens(record, times.setdefault(str(record.get("step")), []))
        elif record["t"] == "finish":
            step = str(record.get("step"))
            count = len(times.get(step, []))
            if record.get("tokens") != count:
                raise LmxError(
                    f"step {step} finished with {record.get('tokens')} tokens, {count} were timed"
                )


def _check_tokens(record: Record, times: list[int]) -> None:
    ids, stamps = record.get("ids"), record.get("ns")
    if not _integers(ids) or not _integers(stamps) or len(ids) != len(stamps):
        raise LmxError(f"tokens of step {record.get('step')} are not two equal lists of integers")
    if record.get("first") != len(times):
        raise LmxError(
            f"tokens of step {record.get('step')} begin at {record.get('first')}, "
            f"{len(times)} came before"
        )
    times.extend(stamps)
    if any(later < earlier for earlier, later in itertools.pairwise(times)):
        raise LmxError(f"times of step {record.get('step')} go back")


def _integers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _read_record(text: str) -> Record:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise LmxError(f"a record is not JSON: {text[:60]!r}") from error
    if not isinstance(record, dict) or not isinstance(record.get("t"), str):
        raise LmxError(f"a record has no type: {text[:60]!r}")
    return record


def _read_file(data: bytes) -> list[str]:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise LmxError("the device's file is not ASCII") from error
    if not text.endswith("\n"):
        raise LmxError("the device's file is cut short: its last line does not end")
    return text[:-1].split("\n")
