"""Everything that shows on the screen goes through here; what the screen hides is in the log.

Progress goes to stderr: a live line on a terminal, plain lines elsewhere. A step that works in
silence still says every few seconds that it is alive and how long it has taken.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.status import Status

    from harness.errors import HarnessError

HEARTBEAT_SECONDS = 8.0
UPDATE_SECONDS = 2.0
_SECRET = re.compile(
    r"((?i:token|password|passwd|secret|api_?key)\s*[=:]\s*)\S+|\b(hf_[A-Za-z0-9]+)"
)
# What a terminal obeys rather than shows (C0 but tab and newline, DEL, C1), and lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _State:
    def __init__(self) -> None:
        self.quiet = False
        self.verbose = False
        self.log: TextIO | None = None
        self.lock = threading.RLock()
        self.live: Status | None = None
        self.steps = 0


_state = _State()


def configure(*, verbose: bool = False, quiet: bool = False, log: Path | None = None) -> None:
    """Set what the screen shows and the file that keeps the rest."""
    _state.verbose = verbose
    _state.quiet = quiet
    if _state.log is not None:
        _state.log.close()
        _state.log = None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        _state.log = log.open("a", encoding="utf-8", errors="replace")


def info(text: str) -> None:
    """A line that the user should see unless asked to be quiet."""
    detail(text)
    if not _state.quiet:
        _print(text)


def warn(text: str) -> None:
    """A line that the user should see even when asked to be quiet."""
    detail(f"! {text}")
    _print(f"! {text}")


def detail(text: str) -> None:
    """A line for the log (and for the screen with -v), with secrets masked."""
    masked = _SECRET.sub(lambda match: f"{match.group(1) or ''}***", text)
    with _state.lock:
        if _state.log is not None:
            _state.log.write(f"{time.strftime('%H:%M:%S')} {masked}\n")
            _state.log.flush()
    if _state.verbose:
        _print(f"  {masked}")


def error(failure: HarnessError) -> None:
    """What failed, the cause, and a command to try."""
    lines = [f"x {failure.stage or 'harness':<8} {failure.what}"]
    if failure.cause:
        lines.append(f"  cause  {failure.cause}")
    if failure.remedy:
        lines.append(f"  try    {failure.remedy}")
    for line in lines:
        detail(line)
    _print("\n".join(lines))


def clean(text: str) -> str:
    """Text of a model or a device with its control characters replaced, so that none acts."""
    return _CONTROL.sub("\ufffd", text)


def write(text: str) -> None:
    """Text of a model on standard output, at once and without an end of line."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = clean(text).encode(encoding, "replace").decode(encoding)
    with _state.lock:
        print(shown, end="", flush=True)


def ask(prompt: str) -> str | None:
    """A line that the user types at a terminal, with the lines before it to go back to.

    None at the end of input.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (to import it is to use it)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        return input(prompt)
    except EOFError:
        return None


class Step:
    """A piece of work in progress on the screen."""

    def __init__(self, stage: str, text: str) -> None:
        self.stage = stage
        self.text = text
        self.outcome = ""
        self._began = time.monotonic()
        self._shown = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._began

    def update(self, text: str) -> None:
        """Say what the step does now."""
        self.text = text
        self._show(force=False)

    def progress(self, done: float, total: float, unit: str = "") -> None:
        """Say how far the step is; `unit` "B" prints sizes."""
        if unit == "B":
            amount = f"{size(done)} of {size(total)}"
        else:
            amount = f"{done:g} of {total:g} {unit}".rstrip()
        base = self.text.split(" · ")[0]
        self.update(f"{base} · {amount}")

    def done(self, outcome: str) -> None:
        """What the closing line says instead of the step's text."""
        self.outcome = outcome

    def line(self, mark: str, text: str) -> str:
        """The step as one line of text."""
        return f"{mark} {self.stage:<8} {text}  {self.seconds:.1f} s"

    def _show(self, *, force: bool) -> None:
        with _state.lock:
            now = time.monotonic()
            if _state.live is not None:
                _state.live.update(_escape(f"{self.stage:<8} {self.text}"))
            elif force or now - max(self._shown, self._began) >= UPDATE_SECONDS:
                self._shown = now
                if not _state.quiet:
                    _print(self.line("·", self.text))

    def beat(self) -> None:
        """Break a long silence."""
        if _state.live is None and time.monotonic() - self._shown >= HEARTBEAT_SECONDS:
            self._show(force=True)


@contextlib.contextmanager
def step(stage: str, text: str) -> Iterator[Step]:
    """Show a piece of work from its beginning to its end, with the time it took."""
    current = Step(stage, text)
    _state.steps += 1
    detail(f"> {stage}: {text}")
    stop = threading.Event()
    with _live(current):
        beat = threading.Thread(target=_heart, args=(current, stop), daemon=True)
        beat.start()
        try:
            yield current
        finally:
            stop.set()
    detail(current.line("+", current.outcome or current.text))
    if not _state.quiet:
        _print(current.line("+", current.outcome or current.text.split(" · ")[0]))


def steps_begun() -> int:
    """How many steps were begun or said to be unchanged so far."""
    return _state.steps


def unchanged(stage: str, text: str) -> None:
    """Say that a stage had nothing to do."""
    _state.steps += 1
    info(f"= {stage:<8} {text}")


def size(amount: float) -> str:
    """A number of bytes for people to read (powers of 1024)."""
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"


@contextlib.contextmanager
def _live(current: Step) -> Iterator[None]:
    if _state.quiet or _state.live is not None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.status import Status

    no_color = bool(os.environ.get("NO_COLOR"))
    screen = Console(stderr=True, no_color=no_color, highlight=False)
    with Status(_escape(f"{current.stage:<8} {current.text}"), console=screen) as status:
        _state.live = status
        try:
            yield
        finally:
            _state.live = None


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def _heart(current: Step, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        current.beat()


def _print(text: str) -> None:
    with _state.lock:
        if _state.live is not None:
            _state.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
