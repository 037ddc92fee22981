"""The app on a device: what its Instrumentation can be asked for."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.device.call import PROTOCOL, Call, Reply
from harness.device.failures import MODEL
from harness.device.link import DeviceLink
from harness.device.soak import Soak
from harness.errors import DeviceError
from harness.lmx import Record

REQUEST_SCHEMA = "harness.request/1"
APPLICATION_ID = "dev.alc.harness"
TIMEOUT_SECONDS = 3600.0
# Emulated phones take minutes to start a JVM and load a model; more silence than this is a hang.
SILENCE_SECONDS = 300.0


def _ignore(_: object) -> None:
    """Take no notice of progress."""


@dataclass(frozen=True)
class Step:
    """One generation; steps of the same conversation continue it.

    `template` wraps the prompt in the model's chat template; without it the prompt is raw text.
    `logit_bias` adds to the logits of token ids; minus infinity forbids one. The answer ends before
    the first text of `stop`. `response_format` is "text" or "json" (one object). `context_policy`,
    for when the conversation no longer fits, is "refuse" or "drop_oldest_turns". What is out of its
    range the app refuses (an `AppError` of kind "invalid-request").

    `stop_after` cancels once that many tokens have come. Without `keep` the conversation is
    dropped from the KV cache when the step ends.
    """

    id: str
    prompt: str
    conversation: str = "main"
    system: str | None = None
    template: bool = True
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    stop: Sequence[str] = ()
    response_format: str = "text"
    context_policy: str = "refuse"
    stop_after: int | None = None
    keep: bool = True


class App:
    """The installed app, and the model (deploy's stamp on the device) that it is to use.

    Each call starts the app anew and raises `DeviceError` when the app or the device fails,
    `TimingsIncomplete` when timing records are lost for good. `name` is what the commands to try
    call the model. Without `threads` a forward pass has as many as there are big cores, 4 at most.
    `cpu_variant` names the variant of the model's library that is to run, else the best that the
    processor can run does.
    """

    def __init__(
        self,
        link: DeviceLink,
        *,
        model: str | None,
        name: str = "",
        application_id: str = APPLICATION_ID,
        threads: int | None = None,
        cpu_variant: str | None = None,
        context: int | None = None,
        on_record: Callable[[Record], None] = _ignore,
        on_status: Callable[[str], None] = _ignore,
    ) -> None:
        self._link = link
        self._model = model
        self._name = name
        self._application_id = application_id
        self._threads = threads
        self._cpu_variant = cpu_variant
        self._context = context
        self._on_record = on_record
        self._on_status = on_status

    def info(self) -> Reply:
        """What the app and its engine are."""
        return self._call("info", {})

    def load(self, texts: Sequence[str] = (), *, verify: bool = False) -> Reply:
        """Load the model, and tokenize each text and decode it back.

        `verify` makes the app hash every file of the model first.
        """
        return self._call("load", {"texts": list(texts), "verify": verify})

    def generate(self, steps: Sequence[Step], *, run: str = "") -> Reply:
        """Run the steps one after the other in one process with one load.

        `run` (8 hexadecimal digits, else random) is the id that the timing records bear.
        """
        return self._call("generate", {"steps": [asdict(step) for step in steps]}, run=run)

    def logits(
        self, tokens: Sequence[int], into: Path, *, chunks: Sequence[int] | None = None
    ) -> Reply:
        """Write the logits at every position of `tokens` to `into`.

        The file is little-endian float32 [len(tokens), vocabulary], row by row. `chunks` says how
        many tokens go through each call of the model (1 is a decoding step); by default as many
        as it takes.
        """
        cut = None if chunks is None else list(chunks)
        return self._call("logits", {"tokens": list(tokens), "chunks": cut}, logits=into)

    def soak(
        self, generations: int, *, seed: int = 0, conversations: int = 3, max_tokens: int = 16
    ) -> Soak:
        """Run generations with options by chance, several conversations at once.

        The app compares each answer with the same request run alone, and samples what it holds;
        `Soak.faults` says what was not as it should be.
        """
        asked = {
            "generations": generations,
            "seed": seed,
            "conversations": conversations,
            "max_tokens": max_tokens,
        }
        return Soak.of(self._call("soak", {"soak": asked}).result)

    def chat(self, settings: Mapping[str, Any], on_status: Callable[[str], None]) -> Reply:
        """Let the app serve a chat, as long as one takes; `harness.device.chat` is its host."""
        return self._call("chat", {"chat": settings}, timeout=math.inf, on_status=on_status)

    def force_stop(self) -> None:
        """End the app at once, whatever it does."""
        self._link.shell(["am", "force-stop", self._application_id], timeout=10)

    def _call(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        run: str = "",
        logits: Path | None = None,
        timeout: float = TIMEOUT_SECONDS,
        on_status: Callable[[str], None] | None = None,
    ) -> Reply:
        run = run or secrets.token_hex(4)
        call = Call(
            self._link,
            self._application_id,
            run,
            timeout=timeout,
            silence=SILENCE_SECONDS,
            on_record=self._on_record,
            on_status=on_status or self._on_status,
        )
        request = {
            "schema": REQUEST_SCHEMA,
            "protocol": PROTOCOL,
            "run": run,
            "verb": verb,
            "model": self._model,
            "threads": self._threads,
            "cpu_variant": self._cpu_variant,
            "context": self._context,
            **arguments,
        }
        try:
            return call.make(request, logits=logits)
        except DeviceError as problem:
            named = f"{self._name} " if self._name else ""
            problem.remedy = problem.remedy.replace(f"{MODEL} ", named)
            raise
