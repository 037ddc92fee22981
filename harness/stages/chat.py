"""chat: a conversation with the model on the device, from a terminal or from standard input."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from harness import console
from harness.device import failures
from harness.device.app import App
from harness.device.chat import (
    MAX_TURN,
    Chat,
    ChatSettings,
    Done,
    Event,
    Forgotten,
    Piece,
    Refused,
    open_chat,
)
from harness.device.link import DeviceLink
from harness.interrupts import Interrupts
from harness.types import Installation

PROMPT = "> "
HELP = """\
/stop    end the answer that is being given (also Ctrl-C)
/reset   forget the conversation
/stats   tokens and times of the last answer and of all
/help    this
/quit    leave (also Ctrl-D; Ctrl-C at the prompt, or twice)
"""
# Lines that wait for their turn; with more of them, standard input waits.
MAX_WAITING = 64
_READ_BYTES = 1 << 16
_SECOND = 1e9


def chat(
    link: DeviceLink,
    installation: Installation,
    settings: ChatSettings,
    *,
    threads: int | None,
    cpu_variant: str | None = None,
    context: int | None,
) -> bool:
    """Talk until the user leaves; False where Ctrl-C did it.

    For who holds the device's lock. Raises `DeviceError` when the device or the app fails, and
    `AppError` when an answer fails and nobody sits at a terminal to read so.
    """
    name, device = installation.package.name, installation.device
    app = App(
        link,
        model=installation.stamp,
        name=name,
        application_id=installation.application_id,
        threads=threads,
        cpu_variant=cpu_variant,
        context=context,
    )
    with contextlib.ExitStack() as stack:
        with console.step("chat", f"starting {name} on {device}") as step:
            opened = stack.enter_context(open_chat(link, app, settings, on_status=step.update))
            ready = opened.ready
            step.done(f"{ready.model} · {ready.quantization} on {device}")
        interrupts = stack.enter_context(Interrupts())
        return _Talk(opened, interrupts, Totals(str(device), device.virtual), link.serial).run()


class Totals:
    """What `/stats` tells."""

    def __init__(self, device: str, virtual: bool) -> None:
        self._device = device
        self._virtual = virtual
        self._answers: list[Done] = []

    def add(self, done: Done) -> None:
        """Count an answer."""
        self._answers.append(done)

    def text(self, context: int) -> str:
        """As lines; `context` is how many tokens the model can hold."""
        if not self._answers:
            return "no answer yet\n"
        last = self._answers[-1]
        lines = [f"last     {_figures([last])}"]
        if len(self._answers) > 1:
            lines.append(f"all {len(self._answers):<4} {_figures(self._answers)}")
        lines.append(f"context  {last.context_used:,} of {context:,} tokens")
        note = ": its times say nothing of phones" if self._virtual else ""
        lines.append(f"on       {self._device}{note}")
        return "".join(f"{line}\n" for line in lines)


def _figures(answers: Sequence[Done]) -> str:
    prompt = sum(one.prompt_tokens for one in answers)
    cached = sum(one.cached_tokens for one in answers)
    answer = sum(one.completion_tokens for one in answers)
    parts = [f"prompt {prompt:,} tokens ({cached:,} cached)", f"answer {answer:,}"]
    firsts = [one.first_token_ns for one in answers if one.first_token_ns is not None]
    if firsts:
        parts.append(f"TTFT {sum(firsts) / len(firsts) / 1e6:,.0f} ms")
    prefill = sum(one.prefill_ns for one in answers)
    if prefill:
        parts.append(f"prefill {(prompt - cached) / prefill * _SECOND:,.1f} tok/s")
    # An answer's first token comes of the prefill.
    decoded = sum(max(0, one.completion_tokens - 1) for one in answers)
    decode = sum(one.decode_ns for one in answers)
    if decode:
        parts.append(f"decode {decoded / decode * _SECOND:,.1f} tok/s")
    return " · ".join(parts)


class _Lines:
    """Lines of standard input, read only as they come; those not taken yet wait in order."""

    def __init__(self) -> None:
        self.descriptor = sys.stdin.fileno()
        self.ended = False
        self._waiting: deque[str] = deque()
        self._rest = b""

    @property
    def full(self) -> bool:
        """Are there enough lines to go on with?"""
        return len(self._waiting) >= MAX_WAITING

    def read(self) -> list[str]:
        """The lines that have come; one without an end counts when input ends."""
        data = os.read(self.descriptor, _READ_BYTES)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self.ended and self._rest:
            lines, self._rest = [self._rest], b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in lines]

    def wait(self, line: str) -> None:
        """Keep a line for later."""
        self._waiting.append(line)

    def next(self) -> str | None:
        """The line that has waited longest, None where none has."""
        return self._waiting.popleft() if self._waiting else None


class _Left(Exception):
    """Ctrl-C said that it is enough."""


class _Talk:
    def __init__(self, chat: Chat, interrupts: Interrupts, totals: Totals, serial: str) -> None:
        self._chat = chat
        self._interrupts = interrupts
        self._totals = totals
        self._serial = serial
        self._lines = _Lines()
        self._terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> bool:
        """Serve lines until they end (True) or Ctrl-C ends them (False)."""
        if self._terminal:
            console.info("  /help lists what else can be said")
        try:
            while (line := self._next_line()) is not None and line.strip() != "/quit":
                self._act(line)
        except _Left:
            return False
        return True

    def _next_line(self) -> str | None:
        while (line := self._lines.next()) is None:
            if self._lines.ended:
                return None
            if self._terminal:
                try:
                    with self._interrupts.raised():
                        return console.ask(PROMPT)
                except KeyboardInterrupt as interrupt:
                    console.write("\n")
                    raise _Left from interrupt
            for source in self._ready([self._lines.descriptor, self._interrupts]):
                if source is self._interrupts:
                    raise _Left
                for each in self._lines.read():
                    self._lines.wait(each)
        return line

    def _act(self, line: str) -> None:
        match line.strip():
            case "":
                pass
            case "/help":
                console.write(HELP)
            case "/stats":
                console.write(self._totals.text(self._chat.ready.context))
            case "/reset":
                self._chat.reset()
                self._follow(Forgotten)
                console.info("  the conversation is forgotten")
            case "/stop":
                console.info("  there is no answer to stop")
            case command if command.startswith("/"):
                console.warn(f"there is no {console.clean(command)}; /help lists what there is")
            case _ if len(line) > MAX_TURN:
                console.warn(f"{len(line):,} characters are too many; {MAX_TURN:,} can be sent")
            case _:
                self._chat.turn(line)
                self._follow(Done)

    def _follow(self, last: type[Event]) -> None:
        """Show what comes until `last` or an error has; lines and Ctrl-C may end it earlier."""
        stopping, whole = False, True
        while True:
            sources: list[Any] = [self._chat, self._interrupts]
            if not (self._lines.ended or self._lines.full):
                sources.append(self._lines.descriptor)
            ready = self._ready(sources)
            if self._interrupts in ready:
                if self._interrupts.take() > 1 or stopping:
                    console.write("\n")
                    raise _Left
                stopping = True
                self._chat.stop()
            if self._lines.descriptor in ready:
                for line in self._lines.read():
                    if line.strip() == "/stop":
                        self._chat.stop()
                    else:
                        self._lines.wait(line)
            if self._chat not in ready:
                continue
            for event in self._chat.receive():
                if isinstance(event, Piece):
                    console.write(event.text)
                    whole = event.text.endswith("\n")
                    continue
                if not whole:
                    console.write("\n")
                    whole = True
                self._end(event)
                if isinstance(event, (last, Refused)):
                    return

    def _end(self, event: Event) -> None:
        """Take note of what ended an answer."""
        if isinstance(event, Done):
            self._totals.add(event)
            if event.reason == "cancelled":
                console.info("  stopped")
            elif event.reason == "length":
                console.info("  cut: the answer has all its tokens, or the context is full")
        elif isinstance(event, Refused):
            error = {"kind": event.kind, "message": console.clean(event.message)}
            if not self._terminal:
                raise failures.app_error(self._serial, error)
            hint = "; /reset starts anew" if event.kind in ("context-full", "cache-budget") else ""
            console.warn(f"{error['kind']}: {error['message']}{hint}")

    @staticmethod
    def _ready(sources: Sequence[Any]) -> list[Any]:
        return select.select(sources, [], [])[0]
