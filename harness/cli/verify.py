"""`harness verify`: a package's logits against a golden file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli import options


@click.command("verify")
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--golden",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="An .npz with input_ids, logits and greedy.",
)
@click.option("-s", "--serial", help="Run it on this device (default: on this machine).")
@options.on_processor
@options.work
def command(package: Path, golden: Path, as_json: bool, **flags: Any) -> None:
    """Hold a package's logits against a reference's."""
    from harness import pipeline
    from harness.stages.verify import require_passed

    document = pipeline.verify(package, golden, options.settle(flags, "verify"))
    if as_json:
        options.print_json("harness.verify/1", **document)
    else:
        for way, figures in document["ways"].items():
            click.echo(f"{way:8} " + "  ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    require_passed(document)
