"""`harness devices`: what adb sees, and what to do about a device that does not answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from harness.cli import options


@click.command("devices")
@options.work
def command(as_json: bool, **flags: Any) -> None:
    """List devices and what keeps one from answering."""
    from harness.device import discover
    from harness.device.adb import AdbLink
    from harness.errors import DeviceError
    from harness.tools import adb

    options.settle(flags)
    client = adb.find()
    rows: list[dict[str, Any]] = []
    for attached in discover.attached(client):
        row: dict[str, Any] = {**dataclasses.asdict(attached), "remedy": attached.remedy}
        if attached.ready:
            try:
                device = discover.identify(AdbLink(client, attached.serial))
                row |= dataclasses.asdict(device)
            except DeviceError as problem:
                row |= {"state": str(problem), "remedy": problem.remedy}
        rows.append(row)
    if as_json:
        options.print_json("harness.devices/1", devices=rows)
        return
    if not rows:
        click.echo("no device is attached; `harness phone start` starts a virtual one", err=True)
    for row in rows:
        click.echo(_line(row))


def _line(row: dict[str, Any]) -> str:
    if "api_level" not in row:
        return f"{row['serial']:<22} {row['state']:<14} {row['remedy']}"
    kind = "virtual phone" if row["virtual"] else row["model"]
    memory = row["memory_bytes"] / 2**30
    return (
        f"{row['serial']:<22} {row['state']:<14} {kind}  {row['abi']}  "
        f"Android API {row['api_level']}  {memory:.1f} GiB"
    )
