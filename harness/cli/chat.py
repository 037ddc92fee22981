"""`harness chat`: a conversation with a model on a device."""

from __future__ import annotations

import secrets
from typing import Any

import click

from harness.cli import options
from harness.errors import ExitCode


@click.command("chat")
@options.on_processor
@options.on_device
@options.on_model
@click.option("--system", help="What the model is told before anything is said.")
@click.option("--temperature", type=float, default=0.0, help="0 (default) takes the best token.")
@click.option("--top-p", type=float, default=1.0, help="Keep the likeliest tokens of this sum.")
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Keep so many tokens.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Makes answers repeatable.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer (default: 512).")
@click.option("--context", type=click.IntRange(min=1), help="Tokens of the conversation.")
@options.screen
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Talk to the model on the device."""
    from harness.device.chat import ChatSettings

    road = options.road("chat", flags)
    seed = flags["seed"]
    settings = ChatSettings(
        system=flags["system"],
        max_tokens=road.config.number("run.max_tokens") or ChatSettings.max_tokens,
        temperature=flags["temperature"],
        top_p=flags["top_p"],
        top_k=flags["top_k"],
        seed=secrets.randbits(31) if seed is None else seed,
    )
    if not road.chat(settings, context=flags["context"]):
        ctx.exit(ExitCode.INTERRUPTED)
