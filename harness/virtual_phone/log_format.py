"""How logcat prints entries (AOSP system/logging, `logprint.cpp`)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from harness.virtual_phone.logd import Buffer, Entry, Priority

FORMATS = ("brief", "process", "tag", "thread", "raw", "time", "threadtime", "long")
MODIFIERS = (
    "color",
    "descriptive",
    "epoch",
    "monotonic",
    "printable",
    "uid",
    "usec",
    "nsec",
    "UTC",
    "year",
    "zone",
)
_NAMES = {0: "root", 1000: "system", 2000: "shell"}
_COLORS = {
    Priority.DEBUG: 75,
    Priority.INFO: 40,
    Priority.WARN: 166,
    Priority.ERROR: 196,
    Priority.FATAL: 196,
}


class BadFormat(ValueError):
    """A word that `-v` does not know."""


@dataclass
class LogFormat:
    """A format and its modifiers; `-v` may be given several times."""

    name: str = "threadtime"
    modifiers: set[str] = field(default_factory=set)

    def add(self, words: str) -> None:
        """Apply one `-v` argument; raises `BadFormat`."""
        for word in re.split(r"[,:; \t]+", words):
            if word in FORMATS:
                self.name = word
            elif word in MODIFIERS or word == "colour":
                self.modifiers.add("color" if word == "colour" else word)
            elif word:
                raise BadFormat(f'Invalid parameter "{word}" to -v')

    def render(self, entry: Entry) -> bytes:
        """The entry as logcat prints it; each line of a message gets the header anew."""
        prefix, suffix = self._frame(entry)
        body = entry.message
        if "printable" in self.modifiers:
            body = re.sub(rb"[^\t\n -~\x80-\xff]", lambda m: b"\\x%02x" % m.group()[0], body)
        if self.name == "long":
            text = prefix + b"\n" + body + suffix
        else:
            lines = body.split(b"\n")
            if len(lines) > 1 and not lines[-1]:
                lines.pop()
            text = b"".join(prefix + line + suffix + b"\n" for line in lines)
        if "color" in self.modifiers:
            color = _COLORS.get(Priority(entry.priority), 231)
            return b"\x1b[38;5;%dm%s\x1b[0m" % (color, text)
        return text

    def _frame(self, entry: Entry) -> tuple[bytes, bytes]:
        letter = _letter(entry.priority)
        tag = entry.tag.decode("utf-8", "surrogateescape")
        uid = ""
        if "uid" in self.modifiers:
            uid = f"{_NAMES.get(entry.uid, str(entry.uid)):>5}:"
        pid, tid = entry.pid, entry.tid
        suffix = ""
        match self.name:
            case "tag":
                prefix = f"{letter}/{tag:<8}: "
            case "process":
                prefix, suffix = f"{letter}({uid}{pid:5d}) ", f"  ({tag})"
            case "thread":
                prefix = f"{letter}({uid}{pid:5d}:{tid:5d}) "
            case "raw":
                prefix = ""
            case "time":
                prefix = f"{self._time(entry)} {letter}/{tag:<8}({uid}{pid:5d}): "
            case "threadtime":
                who = uid.replace(":", " ")
                prefix = f"{self._time(entry)} {who}{pid:5d} {tid:5d} {letter} {tag:<8}: "
            case "long":
                where = f"{uid}{pid:5d}:{tid:5d}"
                prefix = f"[ {self._time(entry)} {where} {letter}/{tag:<8} ]"
                suffix = "\n\n"
            case _:
                prefix = f"{letter}/{tag:<8}({uid}{pid:5d}): "
        return prefix.encode("utf-8", "surrogateescape"), suffix.encode("utf-8", "surrogateescape")

    def _time(self, entry: Entry) -> str:
        seconds, nanoseconds = divmod(entry.time_ns, 10**9)
        chosen = self.modifiers
        if "monotonic" in chosen:
            offset = time.time_ns() - time.monotonic_ns()
            seconds, nanoseconds = divmod(max(0, entry.time_ns - offset), 10**9)
            text = f"{seconds:6d}"
        elif "epoch" in chosen:
            text = f"{seconds:19d}"
        else:
            # The phone's time zone is UTC, whatever the host's is.
            shape = "%Y-%m-%d %H:%M:%S" if "year" in chosen else "%m-%d %H:%M:%S"
            text = time.strftime(shape, time.gmtime(seconds))
        if "nsec" in chosen:
            text += f".{nanoseconds:09d}"
        elif "usec" in chosen:
            text += f".{nanoseconds // 1000:06d}"
        else:
            text += f".{nanoseconds // 10**6:03d}"
        if "zone" in chosen and not chosen & {"epoch", "monotonic"}:
            text += " +0000"
        return text


class Renderer:
    """Prints a sequence of entries with the lines that mark where buffers begin."""

    def __init__(self, form: LogFormat, *, dividers: bool) -> None:
        self._form = form
        self._dividers = dividers
        self._begun: set[Buffer] = set()
        self._last: Buffer | None = None

    def render(self, entry: Entry) -> bytes:
        """The entry, after "--------- beginning of main" where its buffer is new."""
        text = b""
        if entry.buffer is not self._last:
            name = entry.buffer.name.lower().encode()
            if entry.buffer not in self._begun:
                text = b"--------- beginning of " + name + b"\n"
            elif self._dividers:
                text = b"--------- switch to " + name + b"\n"
            self._begun.add(entry.buffer)
            self._last = entry.buffer
        return text + self._form.render(entry)


def _letter(priority: int) -> str:
    try:
        return Priority(priority).letter
    except ValueError:
        return "?"
