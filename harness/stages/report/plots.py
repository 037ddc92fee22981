"""The two plots of a prompt: latency over position, and how the intervals are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness import stats
from harness.stages.report.svg import Scale, element, label, points, ticks

WIDTH, HEIGHT = 480.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 34.0, 30.0, 44.0
LINE_HEIGHT = 14.0
# Beyond this a mark for each token is a smear; the line says it all.
MAX_MARKS = 300
MIN_BINS, MAX_BINS = 6, 40


def latency(intervals: Sequence[float], device: str) -> str:
    """Milliseconds of each decode interval over the position of its token."""
    x = Scale(0.5, len(intervals) + 0.5, LEFT, WIDTH - RIGHT)
    y = Scale(0, max(intervals) * 1.08, HEIGHT - BOTTOM, TOP)
    line = [(x(number), y(ms)) for number, ms in enumerate(intervals, start=1)]
    parts = [_rows(y), _columns(ticks(1, len(intervals), 8, whole=True), x)]
    parts.append(element("polyline", class_="line", points=points(line)))
    if len(intervals) <= MAX_MARKS:
        parts += [
            element(
                "circle",
                element("title", text=f"token {number}: {ms:.2f} ms on a {device}"),
                class_="mark",
                cx=at[0],
                cy=at[1],
                r=2.6,
            )
            for number, (ms, at) in enumerate(zip(intervals, line, strict=True), start=1)
        ]
    parts += _levels(intervals, y)
    return _plot(
        f"Milliseconds for each token over its position, {device}",
        parts,
        across="position of the token in the answer",
        up=f"ms, {device}",
    )


def distribution(intervals: Sequence[float], device: str) -> str:
    """How many decode intervals lie between which milliseconds."""
    edges = bins(intervals)
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for ms in intervals:
        counts[min(int((ms - edges[0]) / width), len(counts) - 1)] += 1
    x = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = Scale(0, max(counts) * 1.08, HEIGHT - BOTTOM, TOP)
    parts = [_rows(y, whole=True), _columns(ticks(edges[0], edges[-1], 6), x)]
    for number, count in enumerate(counts):
        low, high = edges[number], edges[number + 1]
        title = f"{count} tokens from {low:.2f} to {high:.2f} ms on a {device}"
        parts.append(
            element(
                "rect",
                element("title", text=title),
                class_="bar",
                x=x(low) + 0.75,
                y=y(count),
                width=max(x(high) - x(low) - 1.5, 0.5),
                height=y(0) - y(count),
            )
        )
    for percent in (50, 95):
        at = x(stats.percentile(intervals, percent))
        parts.append(element("line", class_="level", x1=at, x2=at, y1=TOP, y2=y(0)))
        anchor = "end" if percent == 50 else "start"
        beside = at + (4 if percent == 95 else -4)
        parts.append(
            element(
                "text", class_="note", x=beside, y=TOP - 8, text_anchor=anchor, text=f"p{percent}"
            )
        )
    return _plot(
        f"How the milliseconds for each token are distributed, {device}",
        parts,
        across=f"ms for each token, {device}",
        up="tokens",
    )


def bins(values: Sequence[float]) -> list[float]:
    """Equal bins over the values, as wide as Freedman and Diaconis (1981) advise, within limits."""
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5
    quarter = stats.percentile(values, 75) - stats.percentile(values, 25)
    width = 2 * quarter / math.cbrt(len(values))
    wanted = math.ceil((high - low) / width) if width > 0 else MIN_BINS
    count = min(max(wanted, MIN_BINS), MAX_BINS)
    return [low + (high - low) * number / count for number in range(count + 1)]


def _rows(scale: Scale, *, whole: bool = False) -> str:
    """Horizontal grid lines with their numbers."""
    parts = []
    for value in ticks(scale.low, scale.high, 5, whole=whole):
        at = scale(value)
        kind = "axis" if value == 0 else "grid"
        parts.append(element("line", class_=kind, x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        parts.append(
            element(
                "text", class_="tick", x=LEFT - 8, y=at + 4, text_anchor="end", text=label(value)
            )
        )
    return "".join(parts)


def _columns(values: Sequence[float], scale: Scale) -> str:
    """The numbers below the horizontal axis."""
    below = HEIGHT - BOTTOM + 18
    return "".join(
        element(
            "text", class_="tick", x=scale(value), y=below, text_anchor="middle", text=label(value)
        )
        for value in values
    )


def _levels(intervals: Sequence[float], scale: Scale) -> list[str]:
    """Where half and 95 % of the intervals lie below."""
    low, high = (scale(stats.percentile(intervals, percent)) for percent in (50, 95))
    apart = max(0.0, LINE_HEIGHT - (low - high)) / 2
    parts = []
    for name, at, shift in (("p50", low, apart), ("p95", high, -apart)):
        parts.append(element("line", class_="level", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        beside = WIDTH - RIGHT + 6
        parts.append(element("text", class_="note", x=beside, y=at + shift + 4, text=name))
    return parts


def _plot(title: str, parts: Sequence[str], *, across: str, up: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return element(
        "svg",
        element("title", text=title),
        *parts,
        element("text", class_="name", x=middle, y=HEIGHT - 6, text_anchor="middle", text=across),
        element("text", class_="name", x=4, y=12, text=up),
        class_="plot",
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        role="img",
    )
