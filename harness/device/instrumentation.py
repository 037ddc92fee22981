"""`am instrument -w -r`: its output as a value that says "passed" only on positive proof.

The output is a sequence of lines (AOSP, cmds/am: Instrument.java):

    INSTRUMENTATION_STATUS: <key>=<value, which may go on over further lines>
    INSTRUMENTATION_STATUS_CODE: <code>       ends a bundle of STATUS lines
    INSTRUMENTATION_RESULT: <key>=<value>
    INSTRUMENTATION_CODE: <code>              -1 (RESULT_OK) only means that it finished

and, when it fails, INSTRUMENTATION_FAILED, INSTRUMENTATION_ABORTED or onError lines. `am` exits
with 0 whether or not it failed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto

RESULT_OK = -1

_LINE = re.compile(
    r"(INSTRUMENTATION_STATUS_CODE|INSTRUMENTATION_STATUS|INSTRUMENTATION_RESULT"
    r"|INSTRUMENTATION_CODE|INSTRUMENTATION_FAILED|INSTRUMENTATION_ABORTED|onError): ?(.*)"
)
_NUMBER = re.compile(r"\s*(-?\d+)\s*")


@dataclass(frozen=True)
class Status:
    """A bundle that the instrumentation sent while it ran."""

    code: int
    values: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """How an instrumentation ended. `problem` is empty only if it finished and said so."""

    code: int | None
    results: dict[str, str]
    problem: str


class _Where(Enum):
    OUTSIDE = auto()
    STATUS = auto()
    RESULT = auto()


@dataclass
class Parser:
    """Reads the output line by line."""

    code: int | None = None
    results: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    _status: dict[str, str] = field(default_factory=dict)
    _where: _Where = _Where.OUTSIDE
    _key: str = ""

    def feed(self, line: str) -> Status | None:
        """Take one line; the status bundle that it ends, if it does."""
        text = line.rstrip("\r\n")
        match = _LINE.fullmatch(text)
        if match is None:
            self._continue(text)
            return None
        kind, value = match.groups()
        if kind == "INSTRUMENTATION_STATUS":
            self._begin(_Where.STATUS, value)
        elif kind == "INSTRUMENTATION_RESULT":
            self._begin(_Where.RESULT, value)
        elif kind == "INSTRUMENTATION_STATUS_CODE":
            return self._end_status(value)
        elif kind == "INSTRUMENTATION_CODE":
            self._where = _Where.OUTSIDE
            self._finish(value)
        else:
            self._where = _Where.OUTSIDE
            self.errors.append(text)
        return None

    def _begin(self, where: _Where, value: str) -> None:
        self._where = where
        self._key, _, first = value.partition("=")
        self._bundle()[self._key] = first

    def _continue(self, text: str) -> None:
        if self._where is not _Where.OUTSIDE:
            self._bundle()[self._key] += "\n" + text
        elif text.strip():
            self.noise.append(text)

    def _bundle(self) -> dict[str, str]:
        return self._status if self._where is _Where.STATUS else self.results

    def _end_status(self, value: str) -> Status | None:
        values, self._status, self._where = self._status, {}, _Where.OUTSIDE
        number = _NUMBER.fullmatch(value)
        if number is None:
            self.errors.append(f"unreadable status code {value!r}")
            return None
        if "Error" in values:
            self.errors.append(values["Error"].strip())
        return Status(int(number.group(1)), values)

    def _finish(self, value: str) -> None:
        number = _NUMBER.fullmatch(value)
        if number is None:
            self.errors.append(f"unreadable code {value!r}")
        elif self.code is not None:
            self.errors.append("it finished twice")
        else:
            self.code = int(number.group(1))

    def outcome(self) -> Outcome:
        """What is known at the end of the output."""
        problems = list(self.errors)
        short, long = (self.results.get(key, "").strip() for key in ("shortMsg", "longMsg"))
        problems += [long if long.startswith(short) else f"{short}: {long}"] if long else []
        problems += [short] if short and not long else []
        if self.code is None:
            problems.append("the output ends before the instrumentation does")
        elif self.code != RESULT_OK and not problems:
            problems.append(f"it finished with code {self.code}")
        if self.code is None and self.noise:
            problems.append(self.noise[0].strip())
        return Outcome(self.code, dict(self.results), "; ".join(problems))
