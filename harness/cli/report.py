"""`harness report`: a recorded run again."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import options
from harness.cli.show import show_report


@click.command("report")
@click.argument("run", required=False)
@options.work
def command(run: str | None, as_json: bool, **flags: Any) -> None:
    """Show a measurement as a table, JSON and an offline HTML page."""
    from harness.stages.report import report
    from harness.store import runs

    workspace = options.settle(flags, "report").workspace
    # A run is named by its id, the beginning of it, or its folder.
    stored = runs.latest_run(workspace) if run is None else runs.find_run(workspace, run)
    show_report(report(stored.value()), as_json)
