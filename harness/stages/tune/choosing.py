"""Which of the candidates is taken: the fastest, if it is faster by more than chance may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness import stats
from harness.tuned import Choice, Times


@dataclass(frozen=True)
class Sample:
    """One run: the median time of a decoded token, and a prompt's time by its tokens, in ms."""

    decode_ms: float
    prefill_ms: float


@dataclass(frozen=True)
class Tried:
    """A candidate and its samples, one a round."""

    choice: Choice
    samples: tuple[Sample, ...]

    def decode_ms(self) -> list[float]:
        """The times of a decoded token."""
        return [sample.decode_ms for sample in self.samples]

    def prefill_ms(self) -> list[float]:
        """The times of a prompt's token."""
        return [sample.prefill_ms for sample in self.samples]

    def both_ms(self) -> list[float]:
        """The times of a token read and a token written: what threads and variants go by."""
        return [sample.decode_ms + sample.prefill_ms for sample in self.samples]

    def times(self) -> Times:
        """The medians and the spreads."""
        return Times(
            decode_ms=round(stats.median(self.decode_ms()), 6),
            decode_spread_ms=round(spread(self.decode_ms()), 6),
            prefill_ms=round(stats.median(self.prefill_ms()), 6),
            prefill_spread_ms=round(spread(self.prefill_ms()), 6),
        )


def spread(values: Sequence[float]) -> float:
    """The distance between the quartiles: one slow round in five does not widen it."""
    return stats.percentile(values, 75) - stats.percentile(values, 25)


def better(values: Sequence[float], than: Sequence[float]) -> bool:
    """Whether times are shorter by more than both spreads together."""
    return stats.median(than) - stats.median(values) > spread(values) + spread(than)


def best(
    tried: Sequence[Tried], default: Choice, values: Callable[[Tried], Sequence[float]]
) -> Choice:
    """The candidate of the smallest median among those that are better than the default.

    The default itself where none is.
    """
    standard = next(values(one) for one in tried if one.choice == default)
    faster = [one for one in tried if better(values(one), standard)]
    if not faster:
        return default
    return min(faster, key=lambda one: stats.median(values(one))).choice
