"""`harness test`: the device suites, run again even where they have passed before."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import options


@click.command("test")
@options.on_processor
@options.on_device
@options.on_model
@options.work
def command(as_json: bool, **flags: Any) -> None:
    """Run the test suites on the device."""
    road = options.road("test", flags)
    road.retest = True
    options.show_value("test", road.value("test"), as_json)
