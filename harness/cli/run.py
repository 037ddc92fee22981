"""`harness run`: every stage in order."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import options
from harness.cli.show import show_report
from harness.pipeline import STAGES


@click.command("run")
@click.option("--from", "first", type=click.Choice(STAGES), default=STAGES[0], help="First stage.")
@click.option("--to", "last", type=click.Choice(STAGES), default=STAGES[-1], help="Last stage.")
@options.prompts
@options.on_processor
@options.on_device
@options.on_model
@options.work
def command(first: str, last: str, as_json: bool, **flags: Any) -> None:
    """Take a model through every stage, from its checkpoint to a report."""
    road = options.road("run", flags)
    value = road.walk(first, last)
    if last == "report":
        show_report(value, as_json)
    else:
        options.show_value(last, value, as_json)
