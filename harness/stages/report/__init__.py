"""report: the figures of a recorded run as a table, a JSON document and one HTML file.

Everything is derived from the run's raw samples, so that an old run can be reported again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import UsageError
from harness.stages.report import page, table
from harness.stages.report.document import document
from harness.stages.report.figures import Figures, derive
from harness.store import runs
from harness.types import Run

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """A run's figures, the JSON document that holds them, and the HTML file."""

    figures: Figures
    document: Mapping[str, Any]
    page: Path

    def text(self, *, color: bool = False, width: int = 100) -> str:
        """The answers and the table of timings; with `color` for a terminal."""
        return table.text(self.figures, color=color, width=width)


def report(run: Run) -> Report:
    """Derive the figures of a run and write its HTML file into the run's folder.

    Raises `UsageError` if the run broke off, `StageFailed` if its samples are damaged.
    """
    stored = runs.open_run(run.path)
    if stored.state != runs.FINISHED:
        raise UsageError(
            f"run {stored.id} has no figures",
            cause=f"it is {stored.state}: {stored.summary.get('error', 'it never ended')}",
            remedy="harness report   # takes the newest finished run",
        )
    figures = derive(stored)
    path = stored.path / PAGE
    files.write_text(path, page.html(figures))
    return Report(figures, document(figures, stored.path, path), path)
