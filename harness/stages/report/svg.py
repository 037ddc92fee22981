"""Inline SVG by hand: elements, scales and round tick marks; every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr


def element(tag: str, *children: str, text: str = "", **attributes: str | float) -> str:
    """An SVG element; `class_` is the class, and underscores in names become hyphens."""
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(_value(value))}"
        for name, value in attributes.items()
    )
    return f"<{tag}{written}>{escape(text)}{''.join(children)}</{tag}>"


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Coordinates as a polyline takes them."""
    return " ".join(f"{_value(x)},{_value(y)}" for x, y in pairs)


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` linearly onto `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.begin + share * (self.end - self.begin)


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten) from `low` to `high`.

    With `whole` no tick is a fraction.
    """
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * count >= span)
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def label(value: float) -> str:
    """A tick's number, without digits that say nothing."""
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}"
