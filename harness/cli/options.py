"""Flags that several verbs share, by the names that people know."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from harness import config as settings
from harness import console
from harness.types import Abi

Function = TypeVar("Function", bound=Callable[..., Any])

workspace = click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder that holds harness.toml and .harness (default: this folder).",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
serial = click.option("-s", "--serial", help="The device to use (default: a virtual phone).")
abi = click.option(
    "--abi", type=click.Choice([a.value for a in Abi]), help="ABI of the virtual phone."
)
_verbose = click.option("-v", "--verbose", is_flag=True, help="Show what every program prints.")
_quiet = click.option("-q", "--quiet", is_flag=True, help="Show only warnings and errors.")


def work(function: Function) -> Function:
    """The flags of a verb that does work."""
    for option in (_quiet, _verbose, as_json, workspace):
        function = option(function)
    return function


def on_device(function: Function) -> Function:
    """The flags that choose a device."""
    return abi(serial(function))


def settle(flags: Mapping[str, Any], verb: str = "") -> settings.Config:
    """Settings from the flags and everything below them; a verb that does work gets a log."""
    folder = Path(flags["workspace"]).resolve()
    log = None
    if verb:
        log = folder / ".harness" / "log" / f"{time.strftime('%Y%m%dT%H%M%S')}-{verb}.log"
    console.configure(verbose=bool(flags.get("verbose")), quiet=bool(flags.get("quiet")), log=log)
    return settings.load(
        folder,
        {
            "device.serial": flags.get("serial"),
            "device.abi": flags.get("abi"),
            "run.model": flags.get("model"),
            "run.quantization": flags.get("quant"),
            "run.max_tokens": flags.get("max_tokens"),
        },
    )


def print_json(schema: str, **content: Any) -> None:
    """Print one versioned document on stdout."""
    click.echo(json.dumps({"schema": schema, **content}, indent=2, ensure_ascii=False, default=str))
