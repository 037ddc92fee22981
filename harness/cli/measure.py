"""`harness measure`: the prompts with every token's time, without the suites before it."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import options
from harness.cli.show import show_report


@click.command("measure")
@options.prompts
@options.on_processor
@options.on_device
@options.on_model
@options.work
def command(as_json: bool, **flags: Any) -> None:
    """Run the prompts and record every token's time."""
    show_report(options.road("measure", flags).value("report"), as_json)
