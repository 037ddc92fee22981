"""What each optimisation level costs: prefill and decode beside level 3, on this machine.

    .venv/bin/python benchmarks/opt_levels.py smollm2-135m-instruct

Each round runs the x86_64 library of every level once, in another order each time, on the same
prompt. Ratios are taken within a round, so that what else the machine does falls on all levels.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import click

from harness import golden, recipes
from harness.compiler import host
from harness.compiler.options import OPT_LEVELS, CompileOptions
from harness.stages.compile import compile_model
from harness.types import Abi

FULL = OPT_LEVELS[-1]
ROW = "{:>5} {:>16} {:>16} {:>20} {:>20}"


@click.command()
@click.argument("model")
@click.option("--rounds", default=5, type=click.IntRange(min=5))
@click.option("--prompt-tokens", default=32, type=click.IntRange(min=1))
@click.option("--tokens", default=16, type=click.IntRange(min=3), help="Decoded in a round.")
@click.option("--threads", default=2, type=click.IntRange(min=1))
def main(model: str, rounds: int, prompt_tokens: int, tokens: int, threads: int) -> None:
    """Measure every level of MODEL and print a table."""
    workspace = Path.cwd()
    recipe = recipes.find(model, workspace)
    answers = golden.load(recipe.folder / "golden.json")
    longest = max(([*one.prompt_token_ids, *one.token_ids] for one in answers), key=len)
    prompt = longest[:prompt_tokens]
    if len(longest) < prompt_tokens + tokens:
        raise click.UsageError(f"the longest golden answer ends after {len(longest)} tokens")
    packages = {}
    for level in OPT_LEVELS:
        options = CompileOptions.of(recipe, {"opt_level": level})
        packages[level] = compile_model(recipe, options, (Abi.X86_64,), workspace).path
    prefill: dict[int, list[float]] = {level: [] for level in OPT_LEVELS}
    decode: dict[int, list[float]] = {level: [] for level in OPT_LEVELS}
    for round_ in range(rounds):
        for turn in range(len(OPT_LEVELS)):
            level = OPT_LEVELS[(turn + round_) % len(OPT_LEVELS)]
            found = host.generate(packages[level], prompt, tokens, threads=threads)
            prefill[level].append(found["prefill_ns"] / len(prompt) / 1e6)
            decode[level].append(statistics.median(found["decode_ns"]) / 1e6)
    print(f"{recipe.name} {recipe.quantization}, {len(prompt)} tokens of prompt, {threads} threads")
    print(ROW.format("level", "prefill ms/token", "decode ms/token", "prefill", "decode"))
    for level in reversed(OPT_LEVELS):
        print(
            ROW.format(
                level,
                f"{statistics.median(prefill[level]):.2f}",
                f"{statistics.median(decode[level]):.2f}",
                _ratio(prefill[level], prefill[FULL]),
                _ratio(decode[level], decode[FULL]),
            )
        )


def _ratio(some: Sequence[float], full: Sequence[float]) -> str:
    """How many times the full level's time: the median of the rounds, the least and the most."""
    ratios = [a / b for a, b in zip(some, full, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()
