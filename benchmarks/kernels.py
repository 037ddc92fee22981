"""The compiled model beside llama.cpp, beside plain TVM, and beside this machine's memory.

    .venv/bin/python benchmarks/kernels.py --peer /tmp/peer/bin/python
    .venv/bin/python benchmarks/kernels.py --section itself     # without llama.cpp

Packages run on this host by the library that devices get; the same GGUF goes to both sides, with
the same threads. Both are loaded once and then take turns, round by round. A figure is the median
of the rounds, a ratio the median of each round's ratio, with the smallest and the largest.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from random_gguf import SHAPES
from random_gguf import write as write_gguf
from sides import Side, llama_cpp

from harness import recipes
from harness.compiler import host
from harness.compiler.options import CompileOptions
from harness.compiler.packages.package import read_package
from harness.compiler.sources.source import checkpoint_path
from harness.stages.compile import compile_model
from harness.types import Abi

HERE = Path(__file__).parent
RECIPE = "smollm2-135m-instruct"
CONTEXT = 4352
SETTLE, GENERATE = 32, 16
"""Tokens decoded in a round after the prompt: those that go untimed, and those that are timed. The
first ones find in the caches what the other side has left there."""
PAUSE_S = 0.25
"""Before each turn: threads that wait for work spin for about 0.1 s before they sleep."""
RANDOM_MODELS = ("smollm2-135m", "tinyllama-1.1b", "gemma-3-1b")
SECTIONS = ("recipe", *RANDOM_MODELS, "itself")
HEAD = (
    "| work | threads | harness, ms | llama.cpp, ms | ratio | of rounds | goal |\n|-|-|-|-|-|-|-|"
)


class Work(NamedTuple):
    """What is timed: the prefill of so many tokens, or decoding after them."""

    kind: str
    tokens: int
    threads: int
    goal: float


REAL = (
    Work("decode", 64, 1, 0.45),
    Work("decode", 64, 2, 0.45),
    Work("decode", 1024, 2, 0.6),
    Work("decode", 4096, 2, 0.6),
    Work("prefill", 64, 2, 0.35),
    Work("prefill", 256, 2, 0.35),
    Work("prefill", 1024, 2, 0.35),
)
RANDOM = (Work("decode", 64, 2, 0.7), Work("prefill", 64, 2, 0.7))


@contextmanager
def ours(package: Path, threads: int) -> Iterator[Side]:
    """The package in a process."""
    with tempfile.TemporaryDirectory(prefix="harness-benchmark-") as folder:
        settings, env = host.prepare(package, Path(folder), threads)
        argv = [sys.executable, str(HERE / "package_peer.py"), json.dumps(settings)]
        side = Side(argv, {**os.environ, **env})
        try:
            yield side
        finally:
            side.close()


@contextmanager
def theirs(python: Path, gguf: Path, threads: int) -> Iterator[Side]:
    """llama.cpp in a process."""
    side = llama_cpp(python, gguf, threads, CONTEXT)
    try:
        yield side
    finally:
        side.close()


def times(sides: Sequence[Side], kind: str, count: int, rounds: int) -> list[list[float]]:
    """Each side's milliseconds, round by round; before the rounds one goes untimed."""
    tokens = np.random.default_rng(count).integers(300, 30000, count).tolist()
    found: list[list[float]] = [[] for _ in sides]
    generate = SETTLE + GENERATE + 1 if kind == "decode" else 1
    for turn in range(rounds + 1):
        for side, all_ in zip(sides, found, strict=True):
            time.sleep(PAUSE_S)
            answer = side.ask(tokens=tokens, generate=generate)
            decode = answer["decode_s"][-GENERATE:]
            if turn:
                all_.append(1e3 * (statistics.median(decode) if decode else answer["prefill_s"]))
    return found


def ratio(some: Sequence[float], others: Sequence[float]) -> tuple[float, str]:
    """The median of the rounds' ratios, and the smallest and the largest."""
    ratios = [a / b for a, b in zip(some, others, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.2f}-{max(ratios):.2f}"


def compiled(model: str, workspace: Path, **options: Any) -> Path:
    """The package of a recipe or a GGUF file, with a library for this host."""
    recipe = recipes.find(model, workspace)
    chosen = CompileOptions.of(recipe, {"context": CONTEXT, **options})
    return compile_model(recipe, chosen, (Abi.X86_64,), workspace).path


def against(peer: Path, package: Path, gguf: Path, works: Sequence[Work], rounds: int) -> None:
    """Print a table of both sides."""
    version = None
    for threads in sorted({work.threads for work in works}):
        with ours(package, threads) as mine, theirs(peer, gguf, threads) as other:
            if version is None:
                version = f"{mine.version}, llama-cpp-python {other.version}"
                click.echo(f"{version}\n\n{HEAD}")
            for work in (work for work in works if work.threads == threads):
                a, b = times([mine, other], work.kind, work.tokens, rounds)
                middle, spread = ratio(a, b)
                label = f"{work.kind} {'at' if work.kind == 'decode' else 'of'} {work.tokens}"
                click.echo(
                    f"| {label} | {threads} | {statistics.median(a):.2f} "
                    f"| {statistics.median(b):.2f} | {middle:.2f} | {spread} | {work.goal} |"
                )


def random_gguf(name: str, workspace: Path) -> Path:
    """The file of a shape, written once."""
    gguf = workspace / ".harness" / "benchmarks" / f"{name}.gguf"
    if not gguf.exists():
        gguf.parent.mkdir(parents=True, exist_ok=True)
        part = gguf.with_suffix(".part")
        write_gguf(SHAPES[name], part)
        part.rename(gguf)
    return gguf


def itself(workspace: Path, rounds: int) -> None:
    """Print what no other program is needed for."""
    package, plain = compiled(RECIPE, workspace), compiled(RECIPE, workspace, opt_level=1)
    calls = compiled(
        str(random_gguf("smollm2-calls", workspace)), workspace, quantization="q4f16_gguf"
    )
    size = int(read_package(package).facts["weights_bytes"])
    click.echo("| figure | threads | value | of rounds | goal |\n|-|-|-|-|-|")

    def row(what: str, threads: str, found: tuple[float, str], goal: str) -> None:
        click.echo(f"| {what} | {threads} | {found[0]:.2f} | {found[1]} | {goal} |")

    with ExitStack() as stack:

        def side(path: Path, threads: int) -> Side:
            return stack.enter_context(ours(path, threads))

        one, two = side(package, 1), side(package, 2)
        for kind, count, goal in (("prefill", 256, ">= 1.8"), ("decode", 64, ">= 1.5")):
            found = ratio(*times([one, two], kind, count, rounds))
            row(f"1 thread's time in {kind} / 2 threads'", "1, 2", found, goal)
        found = ratio(*times([side(plain, 2), two], "decode", 64, rounds))
        row("plain TVM's time in decode (--opt-level 1) / ours", "2", found, ">= 20")
        for threads, full in ((1, one), (2, two)):
            found = ratio(*times([side(calls, threads), full], "decode", 64, rounds))
            row("a token's calls / all of its time", str(threads), found, "<= 0.15")
            taken = times([full], "decode", 64, rounds)[0]
            alone = [size / full.ask(bandwidth=size)["bandwidth"] * 1e3 for _ in taken]
            row("reading the weights / a token", str(threads), ratio(alone, taken), ">= 0.60")


@click.command()
@click.option("--peer", type=click.Path(path_type=Path), help="A Python with llama-cpp-python.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=5))
@click.option(
    "--section", "sections", multiple=True, type=click.Choice(SECTIONS), help="All by default."
)
def main(peer: Path | None, rounds: int, sections: tuple[str, ...]) -> None:
    """Print the tables; their figures are of this machine only."""
    workspace = Path.cwd()
    for section in sections or SECTIONS:
        click.echo(f"\n{section}, {rounds} rounds\n")
        if section == "itself":
            itself(workspace, rounds)
            continue
        if peer is None:
            raise click.UsageError("--peer is needed for all but --section itself")
        if section == "recipe":
            gguf = checkpoint_path(recipes.find(RECIPE, workspace))
            against(peer, compiled(RECIPE, workspace), gguf, REAL, rounds)
            continue
        gguf = random_gguf(section, workspace)
        package = compiled(str(gguf), workspace, quantization="q4f16_gguf")
        against(peer, package, gguf, RANDOM, rounds)


if __name__ == "__main__":
    main()
