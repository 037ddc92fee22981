"""`harness deploy`: the APK and the model on the device."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import options


@click.command("deploy")
@click.option(
    "--verify", is_flag=True, help="Hash what is on the device; send damaged files again."
)
@options.on_device
@options.on_model
@options.work
def command(verify: bool, as_json: bool, **flags: Any) -> None:
    """Install the APK and push the model."""
    road = options.road("deploy", flags)
    road.verify = verify
    options.show_value("deploy", road.value("deploy"), as_json)
