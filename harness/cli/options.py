"""Flags that several verbs share, by the names that people know."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness import config as settings
from harness import console
from harness.types import Abi

if TYPE_CHECKING:
    from harness.pipeline import Road

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


def screen(function: Function) -> Function:
    """The flags that say what is shown, and where everything lies."""
    for option in (_quiet, _verbose, workspace):
        function = option(function)
    return function


def work(function: Function) -> Function:
    """The flags of a verb that does work."""
    return screen(as_json(function))


def on_device(function: Function) -> Function:
    """The flags that choose a device."""
    return abi(serial(function))


def on_model(function: Function) -> Function:
    """The model and what replaces its recipe's choices."""
    model = click.argument("model", required=False)
    quant = click.option("--quant", help="Quantization instead of the recipe's.")
    return model(quant(function))


def on_processor(function: Function) -> Function:
    """How the processor runs the model."""
    help_ = "The library's variant that runs, such as armv8-a (default: the best that can)."
    count = "Threads of a forward pass (default: as many as big cores, 4 at most)."
    threads = click.option("--threads", type=int, help=count)
    return threads(click.option("--cpu-variant", metavar="NAME", help=help_)(function))


def prompts(function: Function) -> Function:
    """What is generated."""
    prompt = click.option("--prompt", "prompt", multiple=True, help="A prompt; may be repeated.")
    tokens = click.option(
        "--max-tokens", type=click.IntRange(min=1), help="Longest answer in tokens."
    )
    return prompt(tokens(function))


def road(
    verb: str,
    flags: Mapping[str, Any],
    *,
    abis: Sequence[Abi] = (),
    compiled: Mapping[str, Any] | None = None,
) -> Road:
    """The road for what the flags ask; `compiled` are those that only `compile` has."""
    from harness import recipes
    from harness.pipeline import Plan, Road

    config = settle(flags, verb)
    recipe = recipes.find(config.text("run.model") or "", config.workspace)
    plan = Plan.of(recipe, config, flags.get("prompt", ()), abis=abis, flags=compiled)
    return Road(plan, config)


def stage_command(stage: str, help: str) -> click.Command:
    """The verb of a stage: it and what it stands on."""

    def run(as_json: bool, **flags: Any) -> None:
        show_value(stage, road(stage, flags).value(stage), as_json)

    return click.command(stage, help=help)(on_device(on_model(work(run))))


def show_value(stage: str, value: Any, as_json: bool) -> None:
    """Print what a stage made: its path, or one document."""
    content = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else dict(value)  # type: ignore[arg-type]
    if as_json:
        print_json(f"harness.{stage}/1", **content)
    elif "path" in content:
        click.echo(content["path"])
    else:
        click.echo("  ".join(f"{key} {value}" for key, value in _flat(content)))


def _flat(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in content.items() if not isinstance(value, dict)]


def settle(flags: Mapping[str, Any], verb: str = "") -> settings.Config:
    """Settings from the flags and everything below them; a verb that does work gets a log."""
    folder = Path(flags["workspace"]).resolve()
    log = None
    if verb:
        log = folder / ".harness" / "log" / f"{time.strftime('%Y%m%dT%H%M%S')}-{verb}.log"
    console.configure(verbose=bool(flags.get("verbose")), quiet=bool(flags.get("quiet")), log=log)
    config = settings.load(
        folder,
        {
            "device.serial": flags.get("serial"),
            "device.abi": flags.get("abi"),
            "run.model": flags.get("model"),
            "run.quantization": flags.get("quant"),
            "run.max_tokens": flags.get("max_tokens"),
            "run.threads": flags.get("threads"),
            "run.cpu_variant": flags.get("cpu_variant"),
        },
    )
    settings.hand_to_tools(config)
    return config


def print_json(schema: str, **content: Any) -> None:
    """Print one versioned document on stdout."""
    click.echo(json.dumps({"schema": schema, **content}, indent=2, ensure_ascii=False, default=str))
