"""What was tried and what came out of it, as a table for people and a document for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.stages.tune import Outcome
from harness.stages.tune.choosing import Tried
from harness.tuned import Choice

HEADERS = ("threads", "variant", "tile", "decode ms", "spread", "prefill ms", "spread", "")


def text(outcome: Outcome, title: str) -> str:
    """Both tables, and what was decided in a sentence; times are in ms a token."""
    parts = [title, ""]
    if outcome.first:
        parts += ["variants and threads", *_table(outcome.first, outcome), ""]
    parts += ["tiles, beside the defaults", *_table(outcome.last, outcome), "", verdict(outcome)]
    return "\n".join(parts)


def verdict(outcome: Outcome) -> str:
    """What was decided and why, in a sentence."""
    if outcome.chosen == outcome.default:
        return "the defaults stay: nothing is faster by more than the spreads of both"
    chosen, default = outcome.chosen.times(), outcome.default.times()
    return (
        f"chosen: {outcome.chosen.choice}: faster than the defaults by more than the spreads of "
        f"both; decode {_change(chosen.decode_ms, default.decode_ms)}, "
        f"prefill {_change(chosen.prefill_ms, default.prefill_ms)}"
    )


def document(outcome: Outcome) -> dict[str, Any]:
    """Every candidate with its samples, and what was decided."""
    return {
        "variants_and_threads": [_document(one) for one in outcome.first],
        "tiles": [_document(one) for one in outcome.last],
        "default": _document(outcome.default),
        "chosen": _document(outcome.chosen),
        "better": outcome.chosen != outcome.default,
    }


def _document(tried: Tried) -> dict[str, Any]:
    samples = [asdict(sample) for sample in tried.samples]
    return {**asdict(tried.choice), **asdict(tried.times()), "samples": samples}


def _change(now: float, before: float) -> str:
    return f"{before:.3g} -> {now:.3g} ms ({(now / before - 1) * 100:+.0f} %)"


def _table(tried: Sequence[Tried], outcome: Outcome) -> list[str]:
    rows = [HEADERS, *(_row(one, outcome) for one in tried)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADERS))]
    # The variant and the last column are words, the others numbers.
    return [
        "  ".join(
            cell.ljust(width) if column in (1, len(HEADERS) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(tried: Tried, outcome: Outcome) -> tuple[str, ...]:
    choice, times = tried.choice, tried.times()
    figures = (
        times.decode_ms,
        times.decode_spread_ms,
        times.prefill_ms,
        times.prefill_spread_ms,
    )
    return (
        str(choice.threads),
        str(choice.cpu_variant),
        "own" if choice.tile is None else str(choice.tile),
        *(f"{figure:.3g}" for figure in figures),
        _mark(choice, outcome),
    )


def _mark(choice: Choice, outcome: Outcome) -> str:
    marks = [
        name
        for name, one in (("default", outcome.default), ("chosen", outcome.chosen))
        if one.choice == choice
    ]
    return ", ".join(marks)
