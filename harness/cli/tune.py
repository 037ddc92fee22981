"""`harness tune`: which threads, variant and tile a processor is fastest with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness import console
from harness.cli import options


@click.command("tune", epilog="Threads and variant are not varied where they are given.")
@options.on_processor
@click.option("-s", "--serial", help="Tune for this device (default: for this machine).")
@click.option(
    "--rounds",
    type=click.IntRange(min=5),
    default=7,
    show_default=True,
    help="How often each candidate runs.",
)
@options.on_model
@options.work
def command(rounds: int, as_json: bool, **flags: Any) -> None:
    """Find the threads, variant and tile that run a model fastest."""
    from harness.tuning import tune

    road = options.road("tune", flags)
    tuning = tune(road.plan, road.config, rounds)
    if as_json:
        options.print_json("harness.tune/1", **tuning.document())
        return
    click.echo(tuning.text())
    here = Path.cwd()
    path = tuning.path.relative_to(here) if tuning.path.is_relative_to(here) else tuning.path
    console.info(f"  tune     {path}")
