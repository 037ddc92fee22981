"""`harness compile`: a checkpoint to a package, and what it says of its quality and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.cli import options
from harness.compiler.options import (
    ACTIVATIONS,
    BACKENDS,
    EMBEDDINGS,
    GROUP_SIZES,
    LAYOUTS,
    OPT_LEVELS,
    CompileOptions,
)
from harness.types import Abi

Function = TypeVar("Function", bound=Callable[..., Any])
MIB = 1 << 20


def _choices(function: Function) -> Function:
    """The flags that say how a checkpoint is compiled, above the recipe's choices."""
    count = click.IntRange(min=1)
    for option in reversed(
        (
            click.option("--context", type=count, help="Tokens of the longest conversation."),
            click.option("--prefill-chunk", type=count, help="Tokens of one prefill step."),
            click.option(
                "--group-size", type=click.Choice(GROUP_SIZES), help="Weights that share a scale."
            ),
            click.option(
                "--activations",
                type=click.Choice(ACTIVATIONS),
                help="What quantized weights are multiplied with.",
            ),
            click.option(
                "--embedding",
                type=click.Choice(EMBEDDINGS),
                help="How a quantized model stores its embedding.",
            ),
            click.option(
                "--calibration",
                metavar="none|self|FILE",
                help="Texts that weights are fitted to; self: sampled from the model.",
            ),
            click.option("--calibration-samples", type=count, help="How many texts."),
            click.option(
                "--memory-budget",
                type=count,
                metavar="MIB",
                help="What the engine may use: shortens the context, or refuses --context.",
            ),
            click.option("--opt-level", type=click.Choice(OPT_LEVELS), help="Optimisations."),
            click.option("--backend", type=click.Choice(BACKENDS), help="What runs the model."),
            click.option("--layout", type=click.Choice(LAYOUTS), help="The layout of weights."),
        )
    ):
        function = option(function)
    return function


@click.command(
    "compile",
    epilog="MODEL is a recipe's name or path, a GGUF file, a Hugging Face folder or id.",
)
@options.on_model
@click.option(
    "--abi",
    "abis",
    type=click.Choice([abi.value for abi in Abi]),
    multiple=True,
    help="ABI of a library; may be repeated (default: the device's).",
)
@_choices
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put the unpacked package here.",
)
@click.option("--tar", is_flag=True, help="Write the archive beside the package, or here.")
@options.serial
@options.work
def command(
    as_json: bool, abis: Sequence[str], output: Path | None, tar: bool, **flags: Any
) -> None:
    """Compile a model into a package for the phone."""
    from harness.compiler.packages import delivery
    from harness.compiler.packages.package import read_package

    known = {field.name for field in fields(CompileOptions)}
    chosen = {name: flags.pop(name) for name in known & flags.keys()}
    road = options.road("compile", flags, abis=[Abi(abi) for abi in abis], compiled=chosen)
    if road.serial is None:
        # A package for no device in particular is not as one was tuned.
        road.plan = replace(road.plan, abis=road.plan.abis or (road.abi,))
    if output is not None:
        delivery.check_target(output)
    package = road.value("compile")
    facts = read_package(package.path).facts
    shown = package.path
    if output is not None:
        delivery.unpack(package.path, output)
        shown = output
    archive = None
    if tar:
        folder = Path() if output is None else output.parent
        archive = shown = delivery.pack(package.path, folder, road.workspace)
    if as_json:
        options.print_json(
            "harness.compile/1",
            path=output or package.path,
            archive=archive,
            key=package.key,
            **{name: facts[name] for name in _TOLD},
            abis=package.abis,
            memory_budget=chosen["memory_budget"],
        )
    else:
        click.echo(closing_line(_near(shown), facts, chosen["memory_budget"]))


_TOLD = (
    "name",
    "quantization",
    "context_window",
    "prefill_chunk",
    "parameters",
    "weights_bytes",
    "bits_per_weight",
    "memory",
    "quality",
)


def _near(path: Path) -> str:
    """The path from this folder, where it lies within."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def closing_line(shown: str, facts: Mapping[str, Any], budget: int | None) -> str:
    """What a package is worth: its path, bits, quality and memory. `budget` is in MiB."""
    parts = [shown, f"{facts['bits_per_weight']:.1f} bits a weight"]
    quality = facts["quality"]
    if quality is not None:
        change = (quality["perplexity"] / quality["source_perplexity"] - 1) * 100
        kl = quality["mean_kl"]
        parts.append(f"perplexity {change:+.1f} % (KL {kl:.2g}) against the checkpoint")
    memory = facts["memory"]
    if memory is None:
        return "   ".join([*parts, "no library: MLC's tools compile their own"])
    needed = f"{memory['total'] / MIB:.0f} MiB"
    verdict = f"needs {needed}" if budget is None else f"fits {budget} MiB"
    parts.append(f"{verdict} at context {memory['context']}")
    return "   ".join(parts)
