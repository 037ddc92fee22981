"""What the engine costs beside the model: time and memory of a token, and the metrics log.

    .venv/bin/python benchmarks/engine_overhead.py

Runs SmolLM2 on this machine's JVM. Each token's time is that between two tokens' stamps of the
decode thread, and the time of the native calls in between is measured where Kotlin makes them, so
that the engine's own time is a difference within each token and not between two runs. The longest
of these calls is the model's compiled function; the others are its embedding and TVM's key/value
cache. The ways of answering take turns, and each round begins with another one.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
import jvm

from harness import console, recipes

SOURCES = ("NativeCalls.java", "EngineOverhead.java")
LABELS = {
    "greedy": "greedy",
    "screen": "greedy, for a screen every 50 ms",
    "drawn": "temperature, top-k, top-p, penalties",
    "json": "JSON",
    "logged": "greedy, with the metrics log",
}


@click.command()
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--tokens", default=128, show_default=True, type=click.IntRange(min=16))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
def main(rounds: int, tokens: int, threads: int) -> None:
    """Measure and print three tables; their figures are of this machine only."""
    workspace = Path.cwd()
    engine = jvm.engine(recipes.find("smollm2-135m-instruct", workspace), workspace)
    rows = [line.split() for line in _run(engine, rounds, tokens, threads).splitlines()]
    _show_times([row[1:] for row in rows if row[0] == "token"])
    _show_bytes([row[1:] for row in rows if row[0] == "bytes"])
    _show_log(rows)


def _run(engine: jvm.Engine, rounds: int, tokens: int, threads: int) -> str:
    """What EngineOverhead.java prints."""
    runtime = next(jar for jar in engine.jars.own if jar.name.startswith("runtime"))
    asm = jvm.library("asm")
    with (
        jvm.compiled(["Retarget.java"], asm) as tool,
        jvm.compiled(SOURCES, engine.classes) as program,
        tempfile.TemporaryDirectory() as scratch,
    ):
        jvm.java("Retarget", [tool, *asm], [runtime, program])
        settings = (str(number) for number in (rounds, tokens, threads))
        with console.step("measure", "the engine on a JVM"):
            return jvm.java(
                "EngineOverhead",
                [program, *engine.classes],
                [engine.library, engine.package, scratch, *settings],
            )


def _show_times(rows: Sequence[Sequence[str]]) -> None:
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for variant, _, whole, longest, native in rows:
        found[variant].append((int(whole), int(longest), int(native)))
    heads = ["answers", "tokens", "token, ms", "compiled function, ms", "engine, ms"]
    print(f"| {' | '.join(heads)} | p95 | of a token | of it in Kotlin, ms |\n|-|-|-|-|-|-|-|-|")
    for variant, label in LABELS.items():
        tokens = found[variant]
        engine = sorted(whole - longest for whole, longest, _ in tokens)
        cells = [
            f"{_median_ms([whole for whole, _, _ in tokens]):.2f}",
            f"{_median_ms([longest for _, longest, _ in tokens]):.2f}",
            f"{_median_ms(engine):.3f}",
            f"{engine[len(engine) * 95 // 100] / 1e6:.3f}",
            f"{sum(engine) / sum(whole for whole, _, _ in tokens):.2%}",
            f"{_median_ms([whole - native for whole, _, native in tokens]):.3f}",
        ]
        print(f"| {label} | {len(tokens)} | {' | '.join(cells)} |")


def _median_ms(nanos: Sequence[int]) -> float:
    return statistics.median(nanos) / 1e6


def _show_bytes(rows: Sequence[Sequence[str]]) -> None:
    print("\n| answers | bytes a token, decode thread | all threads |\n|-|-|-|")
    for variant, own, everyone in rows:
        print(f"| {LABELS[variant]} | {own} | {everyone} |")


def _show_log(rows: Sequence[Sequence[str]]) -> None:
    """The log's processor time, and answers with and without it, in parts of decoding time."""
    decoding: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        if row[0] == "token":
            decoding[row[1], row[2]] += int(row[3])
    spent, ratios = [], []
    for _, round_, _, recorder, writer in (row for row in rows if row[0] == "log"):
        spent.append((int(recorder) + int(writer)) / decoding["logged", round_])
        ratios.append(decoding["logged", round_] / decoding["greedy", round_])
    print("\n| the metrics log | of decoding time | least and most of a round |\n|-|-|-|")
    for label, parts in (
        ("processor time of recording and writing", spent),
        ("decoding with it, beyond without it", [ratio - 1 for ratio in ratios]),
    ):
        middle, low, high = statistics.median(parts), min(parts), max(parts)
        print(f"| {label} | {middle:.2%} | {low:.2%} to {high:.2%} |")


if __name__ == "__main__":
    main()
