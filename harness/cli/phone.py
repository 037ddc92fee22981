"""`harness phone`: virtual phones."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from harness.cli import options
from harness.types import Abi


@click.group("phone")
def command() -> None:
    """Start, stop and look at virtual phones."""


@command.command("start")
@options.abi
@options.work
def start(as_json: bool, **flags: Any) -> None:
    """Start a virtual phone and connect adb to it."""
    from harness.device import discover
    from harness.tools import adb
    from harness.virtual_phone import lifecycle

    config = options.settle(flags, "phone")
    phone = lifecycle.start(
        Abi(config.text("device.abi") or Abi.ARM64),
        config.workspace,
        memory_mib=config.number("phone.memory_mib") or 4096,
        storage_mib=config.number("phone.storage_mib") or 4096,
    )
    discover.connect(adb.find(), phone.serial)
    _show([phone], as_json)


@command.command("status")
@options.work
def status(as_json: bool, **flags: Any) -> None:
    """List this workspace's virtual phones."""
    from harness.virtual_phone import lifecycle

    phones = lifecycle.status(options.settle(flags).workspace)
    if not phones and not as_json:
        click.echo("no virtual phone is running here; `harness phone start` starts one", err=True)
    _show(phones, as_json)


@command.command("stop")
@options.work
def stop(as_json: bool, **flags: Any) -> None:
    """Stop this workspace's virtual phones."""
    from harness.virtual_phone import lifecycle

    phones = lifecycle.status(options.settle(flags).workspace)
    for phone in phones:
        phone.stop()
    if as_json:
        options.print_json("harness.phones/1", stopped=[phone.serial for phone in phones])
    else:
        for phone in phones:
            click.echo(f"stopped {phone.serial}")


def _show(phones: list[Any], as_json: bool) -> None:
    if as_json:
        options.print_json("harness.phones/1", phones=[dataclasses.asdict(p) for p in phones])
        return
    for phone in phones:
        click.echo(f"{phone.serial:<22} {phone.abi}  {phone.folder}")
