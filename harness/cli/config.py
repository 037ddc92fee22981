"""`harness config`: the settings in force."""

from __future__ import annotations

from typing import Any

import click

from harness import config as settings
from harness.cli import options


@click.group("config")
def command() -> None:
    """Show the settings in force and where each comes from."""


@command.command("show")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@options.workspace
@options.as_json
def show(origin: bool, as_json: bool, **flags: Any) -> None:
    """Show every setting: flag, then environment, then harness.toml, then default."""
    values = options.settle(flags).values
    if as_json:
        content = {key: {"value": v.value, "origin": v.origin} for key, v in values.items()}
        options.print_json("harness.config/1", settings=content)
        return
    for setting in settings.SETTINGS:
        value = values[setting.key]
        shown = "-" if value.value is None else str(value.value)
        line = f"{setting.key:<20} {shown:<24}"
        click.echo((f"{line} {value.origin}" if origin else f"{line} {setting.help}").rstrip())
