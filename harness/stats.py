"""Statistics of samples, by named methods, with nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), definition 7: between two
# samples, linear. It is numpy's default, called "linear" there.
PERCENTILE_METHOD = "linear (Hyndman-Fan 7)"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` (0 to 100) of the samples lie, by `PERCENTILE_METHOD`.

    Raises `ValueError` for no samples, a sample that is not finite, or a percent out of range.
    """
    ordered = _checked(values)
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not between 0 and 100")
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    share = position - below
    # Each form is exact at its own end, so that equal neighbours give that very value.
    step = ordered[above] - ordered[below]
    if share < 0.5:
        return ordered[below] + step * share
    return ordered[above] - step * (1 - share)


def median(values: Sequence[float]) -> float:
    """The middle of the samples, or the mean of the two in the middle."""
    return percentile(values, 50)


def mad(values: Sequence[float]) -> float:
    """The median absolute deviation from the median, not scaled to a standard deviation."""
    middle = median(values)
    return median([abs(value - middle) for value in values])


def trend(places: Sequence[float], values: Sequence[float]) -> float:
    """How much the values grow for each unit of their places: the median slope of all pairs.

    Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau" (1968); a jump or a few
    outliers do not move it, steady growth does. Raises `ValueError` for fewer than two places.
    """
    points = list(zip(places, values, strict=True))
    slopes = [
        (value - before) / (place - earlier)
        for index, (place, value) in enumerate(points)
        for earlier, before in points[:index]
        if place != earlier
    ]
    return median(slopes)


def _checked(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("there are no samples")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a sample is not finite")
    return sorted(values)
