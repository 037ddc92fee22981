"""The report as text: each answer, and a table of the timings."""

from __future__ import annotations

import io
from collections.abc import Sequence

from harness.stages.report.figures import Figures

HEADERS = (
    "prompt",
    "load ms",
    "TTFT ms",
    "prefill tok/s",
    "decode tok/s",
    "p50 ms",
    "p95 ms",
    "PSS MB",
    "on",
)


def rows(figures: Figures) -> list[tuple[str, ...]]:
    """The table's cells; every row names the device."""
    return [
        (
            prompt.id,
            number(figures.load_ms),
            number(prompt.ttft_ms),
            number(prompt.prefill_tok_s),
            number(prompt.decode_tok_s),
            number(prompt.decode_ms_p50),
            number(prompt.decode_ms_p95),
            number(figures.pss_peak_mb),
            printable(figures.device),
        )
        for prompt in figures.prompts
    ]


def text(figures: Figures, *, color: bool = False, width: int = 100) -> str:
    """The answers and the table; with `color` for a terminal, else plain."""
    return _rich(figures, width) if color else _plain(figures)


def number(value: float | None) -> str:
    """A figure with three digits that matter, or a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if value else "0"


def title(figures: Figures) -> str:
    """What was measured, in a line."""
    meta = figures.meta
    parts = [meta.get("model"), meta.get("quantization"), meta.get("target"), figures.device]
    return printable(" · ".join(str(part) for part in parts if part))


def _plain(figures: Figures) -> str:
    lines: list[str] = []
    for prompt in figures.prompts:
        lines += [f"{prompt.id} > {printable(prompt.prompt)}", *_indented(prompt.text), ""]
    cells = [HEADERS, *rows(figures)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADERS))]
    lines.append(title(figures))
    lines += [_line(row, widths) for row in cells]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    # Words stand to the left (the first and last columns), numbers to the right.
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    padded[0], padded[-1] = cells[0].ljust(widths[0]), cells[-1]
    return "  ".join(padded).rstrip()


def _indented(text: str) -> list[str]:
    return [f"     {line}".rstrip() for line in printable(text).splitlines() or ["(nothing)"]]


def printable(text: str) -> str:
    """Text of a model or device without what could steer a terminal."""
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


def _rich(figures: Figures, width: int) -> str:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    screen = Console(file=stream, force_terminal=True, width=width, highlight=False)
    for prompt in figures.prompts:
        screen.print(Text(f"{prompt.id} > {printable(prompt.prompt)}", style="dim"))
        answer = Text(printable(prompt.text) or "(nothing)", style="bold")
        screen.print(Padding(answer, (0, 0, 0, 5)))
        screen.print()
    table = Table(
        box=None,
        title=Text(title(figures), style="bold"),
        title_justify="left",
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    for position, header in enumerate(HEADERS):
        edge = position in (0, len(HEADERS) - 1)
        table.add_column(header, justify="left" if edge else "right")
    for row in rows(figures):
        table.add_row(*(Text(cell) for cell in row))
    screen.print(table)
    return stream.getvalue()
