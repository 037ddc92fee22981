"""The command line of logcat."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from harness.virtual_phone.log_format import BadFormat, LogFormat
from harness.virtual_phone.logd import Buffer, Entry, Priority

DEFAULT_BUFFERS = (Buffer.MAIN, Buffer.SYSTEM, Buffer.CRASH, Buffer.KERNEL)

_WITH_VALUE = set("vbtTemGfrnL")
_WITH_LONG_VALUE = {
    "--format",
    "--buffer",
    "--buffer-size",
    "--pid",
    "--uid",
    "--regex",
    "--max-count",
    "--tail",
}
_LONG_NAMES = {
    "--format": "-v",
    "--buffer": "-b",
    "--clear": "-c",
    "--regex": "-e",
    "--max-count": "-m",
    "--tail": "-T",
    "--dividers": "-D",
    "--buffer-size": "-G",
    "--statistics": "-S",
    "--color": "-C",
}
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class BadOption(ValueError):
    """An option that logcat refuses; the text is what it prints."""


@dataclass
class LogcatOptions:
    """What logcat was asked for."""

    form: LogFormat = field(default_factory=LogFormat)
    buffers: set[Buffer] = field(default_factory=set)
    dump: bool = False
    clear: bool = False
    show_size: bool = False
    set_size: int = 0
    dividers: bool = False
    tail: int | None = None
    since_ns: int | None = None
    pid: int | None = None
    uids: frozenset[int] = frozenset()
    regex: re.Pattern[bytes] | None = None
    max_count: int = 0
    tag_levels: dict[str, Priority] = field(default_factory=dict)
    default_level: Priority | None = None

    @classmethod
    def parse(cls, arguments: Sequence[str], environment_tags: str = "") -> LogcatOptions:
        """Read a command line; raises `BadOption` with logcat's own words."""
        options = cls()
        specifications: list[str] = []
        for name, value in _split(arguments):
            if name == "":
                specifications.append(value)
            else:
                options._apply(name, value)
        for text in specifications or [environment_tags]:
            for word in re.split(r"[\s,]+", text.strip()):
                options._filter(word)
        if not options.buffers:
            options.buffers = set(DEFAULT_BUFFERS)
        return options

    def wants(self, entry: Entry) -> bool:
        """Does the entry pass every filter?"""
        if entry.buffer not in self.buffers:
            return False
        if self.pid is not None and entry.pid != self.pid:
            return False
        if self.uids and entry.uid not in self.uids:
            return False
        if self.since_ns is not None and entry.time_ns < self.since_ns:
            return False
        default = Priority.VERBOSE if self.default_level is None else self.default_level
        level = self.tag_levels.get(entry.tag.decode("utf-8", "replace"), default)
        if entry.priority < level:
            return False
        return self.regex is None or self.regex.search(entry.message) is not None

    def _apply(self, name: str, value: str) -> None:
        match name:
            case "-v":
                try:
                    self.form.add(value)
                except BadFormat as problem:
                    raise BadOption(str(problem)) from problem
            case "-b":
                self.buffers |= _buffers(value)
            case "-c":
                self.clear = True
            case "-d":
                self.dump = True
            case "-t" | "-T":
                self.dump = self.dump or name == "-t"
                if value.isdecimal():
                    self.tail = int(value)
                else:
                    self.since_ns = _time(name, value)
            case "-s":
                self.default_level = Priority.SILENT
            case "-e":
                try:
                    self.regex = re.compile(value.encode())
                except re.error as problem:
                    raise BadOption(f"Invalid regex {value}: {problem}") from problem
            case "-m":
                self.max_count = _number(name, value)
                if self.max_count < 1:
                    raise BadOption(f"-m {value}: must be at least 1")
            case "-D":
                self.dividers = True
            case "-g":
                self.show_size = True
            case "-G":
                self.set_size = _size(value)
            case "--pid":
                self.pid = _number(name, value)
            case "--uid":
                self.uids = frozenset(_number(name, part) for part in value.split(","))
            case "-C":
                self.form.add("color")
            case _:
                raise BadOption(f"Unknown option '{name}'")

    def _filter(self, word: str) -> None:
        if not word:
            return
        tag, _, level = word.partition(":")
        letter = level[:1] or ("D" if tag == "*" else "V")
        priority = _level(letter)
        if priority is None or not tag:
            raise BadOption(f"Invalid filter expression '{word}'")
        if tag == "*":
            self.default_level = priority
        else:
            self.tag_levels[tag] = priority


def _level(letter: str) -> Priority | None:
    if letter.isdecimal():
        return Priority(min(max(int(letter), Priority.VERBOSE), Priority.SILENT))
    if letter == "*":
        return Priority.VERBOSE
    return Priority.from_letter(letter)


def _split(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) pairs; ("", text) for filter specifications."""
    rest = list(arguments)

    def value_of(option: str) -> str:
        if not rest:
            raise BadOption(f"option requires an argument -- '{option.lstrip('-')}'")
        return rest.pop(0)

    while rest:
        word = rest.pop(0)
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            if name in _WITH_LONG_VALUE and not equals:
                value = value_of(name)
            yield _LONG_NAMES.get(name, name), value
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in _WITH_VALUE:
                    yield f"-{letter}", letters or value_of(letter)
                    break
                yield f"-{letter}", ""
        else:
            yield "", word


def _buffers(value: str) -> set[Buffer]:
    found: set[Buffer] = set()
    for word in re.split(r"[,:; ]+", value):
        if word == "default":
            found |= {Buffer.MAIN, Buffer.SYSTEM, Buffer.CRASH}
        elif word == "all":
            found |= set(Buffer)
        elif word.upper() in Buffer.__members__:
            found.add(Buffer[word.upper()])
        else:
            raise BadOption(f"Unknown -b buffer '{word}'")
    return found


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise BadOption(f"{name} {value}: not a number")
    return int(value)


def _size(value: str) -> int:
    found = re.fullmatch(r"(\d+)([KkMmGg]?)", value)
    if found is None:
        raise BadOption("-G must be specified as <num><multiplier>.")
    return int(found.group(1)) * _UNITS[found.group(2).upper()]


def _time(name: str, value: str) -> int:
    """`MM-DD HH:MM:SS.f`, `YYYY-MM-DD HH:MM:SS.f` or seconds since 1970, in nanoseconds."""
    whole, _, fraction = value.partition(".")
    if not re.fullmatch(r"\d{0,9}", fraction):
        raise BadOption(f"{name} '{value}' not in time format")
    nanoseconds = int(fraction.ljust(9, "0"))
    if whole.isdecimal():
        return int(whole) * 10**9 + nanoseconds
    for shape, text in (
        ("%Y-%m-%d %H:%M:%S", whole),
        ("%Y-%m-%d %H:%M:%S", f"{time.gmtime().tm_year}-{whole}"),
    ):
        try:
            return calendar.timegm(time.strptime(text, shape)) * 10**9 + nanoseconds
        except (ValueError, OverflowError):
            continue
    raise BadOption(f"{name} '{value}' not in time format")
