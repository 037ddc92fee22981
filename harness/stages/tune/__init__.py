"""tune: how a model runs fastest on one processor, found by letting candidates take turns there.

Not every combination is tried. First all variants of the library with all numbers of threads, in
the library as it is compiled by itself; the best of them goes on. Then the tiles, with that variant
and those threads, and once more the defaults beside them: threads or a variant that are chosen in
the end have beaten the defaults twice.

A round runs each candidate once, in a process of its own, and begins with another candidate than
the round before, so that heat and other work fall on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from harness import console
from harness.errors import HarnessError
from harness.stages.tune.choosing import Sample, Tried, best, better
from harness.stages.tune.runners import Runner
from harness.tuned import Choice

STAGE = "tune"

Bench = Callable[[Sequence[int | None]], AbstractContextManager[Runner]]
"""Makes libraries of these tiles ready to run; the place is nobody else's within the block."""


@dataclass(frozen=True)
class Outcome:
    """What was tried in the first rounds and in those of the tiles, and which came out of it.

    There are no first rounds where threads and variant are given. `default` and `chosen` are of
    the last rounds; they are the same where nothing is better.
    """

    first: tuple[Tried, ...]
    last: tuple[Tried, ...]
    default: Tried
    chosen: Tried


def tune(
    bench: Bench,
    default: Choice,
    *,
    threads: Sequence[int],
    variants: Sequence[str],
    tiles: Sequence[int],
    rounds: int,
) -> Outcome:
    """Try variants with threads, then tiles; every field of `default` but its tile is named.

    Raises what compiling and running raise; a candidate that fails ends it.
    """
    pairs = [Choice(count, variant, default.tile) for variant in variants for count in threads]
    first: tuple[Tried, ...] = ()
    if len(choices := _unique([default, *pairs])) > 1:
        with bench([default.tile]) as run:
            first = _take_turns(run, choices, rounds)
    ahead = best(first, default, Tried.both_ms) if first else default
    tiled = [replace(ahead, tile=tile) for tile in tiles]
    with bench([default.tile, *tiles]) as run:
        last = _take_turns(run, _unique([default, ahead, *tiled]), rounds)
    return _outcome(first, last, default, ahead)


def _outcome(
    first: tuple[Tried, ...], last: tuple[Tried, ...], default: Choice, ahead: Choice
) -> Outcome:
    by_choice = {one.choice: one for one in last}
    # A tile changes nothing of a decoded token, whose noise would only hide it.
    family = [one for one in last if replace(one.choice, tile=ahead.tile) == ahead]
    chosen = by_choice[best(family, ahead, Tried.prefill_ms)]
    if ahead != default and not better(chosen.both_ms(), by_choice[default].both_ms()):
        chosen = by_choice[default]
    return Outcome(first, last, by_choice[default], chosen)


def _take_turns(run: Runner, choices: Sequence[Choice], rounds: int) -> tuple[Tried, ...]:
    """Run every candidate once a round; each round begins with the next one."""
    samples: dict[Choice, list[Sample]] = {choice: [] for choice in choices}
    with console.step(STAGE, f"{len(choices)} candidates in {rounds} rounds") as step:
        for number in range(rounds):
            at = number % len(choices)
            for choice in (*choices[at:], *choices[:at]):
                step.update(f"round {number + 1} of {rounds}: {choice}")
                try:
                    samples[choice].append(run(choice))
                except HarnessError as failure:
                    failure.cause = f"{failure.cause}; with {choice}".removeprefix("; ")
                    raise
        step.done(f"{len(choices)} candidates in {rounds} rounds")
    return tuple(Tried(choice, tuple(found)) for choice, found in samples.items())


def _unique(choices: Sequence[Choice]) -> list[Choice]:
    return list(dict.fromkeys(choices))
