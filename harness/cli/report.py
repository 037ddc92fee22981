"""`harness report`: a recorded run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli import options
from harness.cli.show import show_report


@click.command("report")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@options.work
def command(run: Path | None, as_json: bool, **flags: Any) -> None:
    """Show a measurement as a table, JSON and an offline HTML page."""
    from harness.stages.report import report
    from harness.store import runs

    workspace = options.settle(flags, "report").workspace
    stored = runs.latest_run(workspace) if run is None else runs.open_run(run)
    show_report(report(stored.value()), as_json)
