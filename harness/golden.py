"""Golden answers: what a model's greedy tokens must be, and where they may differ.

`models/<name>/golden.json` holds for each prompt the tokens that the float32 reference chooses
and by how much each leads its rival. Where that lead is small, another order of summation may
turn the choice, and with it everything after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

SCHEMA = "harness.golden/1"
# A lead (in logits) below which float32 and a quantized computation may choose differently.
NEAR = 0.25


@dataclass(frozen=True)
class Answer:
    """One prompt's greedy continuation; `leads[i]` is how far token i is ahead of the next best."""

    prompt: str
    template: bool
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    leads: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """The first position where an answer differs; `allowed` where the lead is below `NEAR`."""

    position: int
    expected: int | None
    actual: int | None
    lead: float
    allowed: bool

    def __str__(self) -> str:
        return (
            f"token {self.position} is {self.actual} where the reference has {self.expected}, "
            f"which leads by {self.lead:.2f}"
        )


def holds_for(quantization: str) -> bool:
    """Whether a form of the weights keeps the checkpoint's own values.

    Golden answers are those of the checkpoint; a form that rounds its weights anew is another
    model, whose answers may be others.
    """
    return quantization.startswith("q0") or quantization.endswith("_gguf")


def load(path: Path) -> tuple[Answer, ...]:
    """The answers of a golden.json. Raises `UsageError` when it is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema is {document['schema']!r}, not {SCHEMA!r}")
        return tuple(
            Answer(
                prompt=one["prompt"],
                template=one["template"],
                prompt_token_ids=tuple(one["prompt_token_ids"]),
                token_ids=tuple(one["token_ids"]),
                leads=tuple(one["leads"]),
            )
            for one in document["answers"]
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UsageError(
            f"{path} holds no golden answers",
            cause=f"{type(problem).__name__}: {problem}",
            remedy=f"git checkout {path}",
        ) from problem


def difference(answer: Answer, actual: Sequence[int]) -> Difference | None:
    """Where `actual` leaves the golden tokens first; None when it does not.

    What follows an allowed difference has another context and is not compared. A
    continuation that is shorter or longer differs where the shorter one ends.
    """
    for position in range(max(len(actual), len(answer.token_ids))):
        expected = answer.token_ids[position] if position < len(answer.token_ids) else None
        found = actual[position] if position < len(actual) else None
        lead = answer.leads[position] if position < len(answer.leads) else float("inf")
        if expected != found:
            return Difference(position, expected, found, lead, allowed=lead < NEAR)
    return None
