"""The engine inside the installed APK beside llama.cpp: same GGUF, same threads, one run.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install llama-cpp-python==0.3.36
    .venv/bin/python benchmarks/against_llama_cpp.py --peer /tmp/peer/bin/python

The x86_64 virtual phone runs the same library natively, so that both sides use this machine's
cores. Rounds alternate between the two; the figures are medians and the ratio of the medians,
with the smallest and the largest ratio of a round.
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import click
from sides import llama_cpp

from harness import config, recipes
from harness.compiler.sources.source import checkpoint_path
from harness.device.app import App, Step
from harness.pipeline import Plan, Road

TEXT = (
    "The tide had gone out and left the harbour full of mud and small bright pools. A boy walked "
    "along the wall with a bucket, looking for crabs, and behind him his sister counted the boats "
    "that lay on their sides. Nobody had told them when the water would come back. "
)


def engine_times(app: App, text: str, generate: int) -> tuple[float, list[float], list[int]]:
    """Prefill seconds, seconds of each decoded token, and the prompt's tokens."""
    warm = Step("warm", text, conversation="w", template=False, max_tokens=4, keep=False)
    step = Step("timed", text, conversation="t", template=False, max_tokens=generate, keep=False)
    reply = app.generate([warm, step])
    prefill = next(r for r in reply.records if r["t"] == "prefill" and r["step"] == "timed")
    stamps = [
        ns for r in reply.records if r["t"] == "tokens" and r["step"] == "timed" for ns in r["ns"]
    ]
    decode = [(after - before) / 1e9 for before, after in itertools.pairwise(stamps)]
    ids = next(s for s in reply.result["steps"] if s["id"] == "timed")["prompt_token_ids"]
    return (prefill["end_ns"] - prefill["start_ns"]) / 1e9, decode, ids


@click.command()
@click.option("--peer", type=click.Path(path_type=Path), required=True, help="Its Python.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--generate", default=64, show_default=True, help="Tokens a round.")
def main(peer: Path, rounds: int, threads: int, generate: int) -> None:
    """Print the table; its figures are of this machine only."""
    settings = config.load(Path.cwd(), {"device.abi": "x86_64", "run.threads": threads})
    recipe = recipes.find("smollm2-135m-instruct", settings.workspace)
    road = Road(Plan.of(recipe, settings), settings)
    if road.plan.serial is not None:
        raise click.UsageError("unset ANDROID_SERIAL: this needs the x86_64 virtual phone")
    stamp = road.deploy.stamp
    app = App(road.link, model=stamp, threads=threads, context=recipe.context)
    other = llama_cpp(peer, checkpoint_path(recipe), threads, recipe.context)
    ours: dict[str, list[float]] = {"prefill": [], "decode": []}
    theirs: dict[str, list[float]] = {"prefill": [], "decode": []}
    tokens: list[int] = []
    try:
        for _ in range(rounds):
            prefill, decode, tokens = engine_times(app, TEXT, generate)
            ours["prefill"].append(prefill)
            ours["decode"].append(statistics.median(decode))
            answer = other.ask(tokens=tokens, generate=generate)
            theirs["prefill"].append(answer["prefill_s"])
            theirs["decode"].append(statistics.median(answer["decode_s"]))
    finally:
        other.close()
    click.echo(f"llama-cpp-python {other.version}, {threads} threads, {rounds} rounds\n")
    click.echo("| work | engine, ms | llama.cpp, ms | ratio | of rounds |\n|-|-|-|-|-|")
    for name, label in (
        ("prefill", f"prefill of {len(tokens)} tokens"),
        ("decode", f"decode of a token, {generate} after it"),
    ):
        a, b = statistics.median(ours[name]), statistics.median(theirs[name])
        ratios = [x / y for x, y in zip(ours[name], theirs[name], strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        click.echo(f"| {label} | {a * 1e3:.1f} | {b * 1e3:.1f} | {a / b:.2f} | {spread} |")


if __name__ == "__main__":
    main()
