"""One sample of a candidate: in the app on a device, or in a process on this machine.

Either loads the model, warms up, reads a prompt and writes an answer that no end token cuts short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import stats
from harness.compiler.packages.package import read_package
from harness.device.app import App, Step
from harness.device.link import DeviceLink
from harness.errors import DeviceError
from harness.lmx import Record
from harness.stages.tune.choosing import Sample
from harness.tuned import Choice
from harness.types import Installation

Runner = Callable[[Choice], Sample]

# Tokens of a prompt on this machine, about as many as the text has for most tokenizers.
PROMPT_TOKENS = 64
ANSWER_TOKENS = 24
NS_PER_MS = 1e6
_TIMED = "timed"
_PROMPT = (
    "The river rises in the hills above the old town, where three small streams meet under the "
    "roots of an ash tree. From there it runs south for forty miles, past mills that no longer "
    "turn, through meadows that it floods every spring, and under eleven bridges. The last of "
    "them"
)


def on_host(packages: Mapping[int | None, Path]) -> Runner:
    """Run packages, by their tile, on this machine by their x86_64 libraries."""
    from harness.compiler import host

    def run(choice: Choice) -> Sample:
        package = packages[choice.tile]
        answer, prompt = _sizes(int(read_package(package).facts["context_window"]), PROMPT_TOKENS)
        times = host.times(
            package, prompt, answer, threads=choice.threads or 1, cpu_variant=choice.cpu_variant
        )
        return Sample(
            decode_ms=stats.median(times["decode_ns"]) / NS_PER_MS,
            prefill_ms=times["prefill_ns"] / prompt / NS_PER_MS,
        )

    return run


def on_phone(link: DeviceLink, installed: Mapping[int | None, Installation]) -> Runner:
    """Run what is installed on a device, by its tile, in the app there."""

    def run(choice: Choice) -> Sample:
        installation = installed[choice.tile]
        app = App(
            link,
            model=installation.stamp,
            name=installation.package.name,
            application_id=installation.application_id,
            threads=choice.threads,
            cpu_variant=choice.cpu_variant,
        )
        reply = app.generate(_steps(read_package(installation.package.path).facts))
        return read_sample(reply.records, link.serial)

    return run


def _sizes(context: int, prompt: int) -> tuple[int, int]:
    """Tokens of the answer, and units of the prompt that surely fit the context beside it."""
    answer = min(ANSWER_TOKENS, max(2, context // 4))
    return answer, max(1, min(prompt, context - answer - 8))


def _steps(facts: Mapping[str, Any]) -> Sequence[Step]:
    # No tokenizer makes more tokens of this text than it has characters, but for a few.
    answer, characters = _sizes(int(facts["context_window"]), len(_PROMPT))
    forbidden = dict.fromkeys(facts["eos_token_ids"], -math.inf)
    return [
        Step(
            name,
            _PROMPT[:characters],
            conversation=name,
            template=False,
            max_tokens=tokens,
            logit_bias=forbidden,
            keep=False,
        )
        for name, tokens in (("warm", 2), (_TIMED, answer))
    ]


def read_sample(records: Sequence[Record], serial: str) -> Sample:
    """The times of the step that counts.

    Raises `DeviceError` if the records are not those of such a run.
    """
    try:
        own = [record for record in records if record.get("step") == _TIMED]
        prefill = [record for record in own if record["t"] == "prefill"]
        stamps = [int(ns) for record in own if record["t"] == "tokens" for ns in record["ns"]]
        read = sum(int(record["end_ns"]) - int(record["start_ns"]) for record in prefill)
        sample = Sample(
            decode_ms=stats.median([(b - a) / NS_PER_MS for a, b in pairwise(stamps)]),
            prefill_ms=read / sum(int(record["tokens"]) for record in prefill) / NS_PER_MS,
        )
        if sample.decode_ms <= 0 or sample.prefill_ms <= 0:
            raise ValueError("its clock does not go on")
        return sample
    except (KeyError, TypeError, ValueError, ArithmeticError) as problem:
        raise DeviceError(
            f"the timings from {serial} are not those of a run",
            cause=f"they lack {problem}" if isinstance(problem, KeyError) else str(problem),
            remedy="run the same command again",
        ) from problem
