"""From nothing to the first token, beside the time that it takes to read the weights' files.

    .venv/bin/python benchmarks/first_token.py

On this machine's JVM. Each round reads the shards plainly, a MiB at a time, and loads the model and
answers with one token, with a cold page cache and with a warm one, in a JVM that has just started
(its classes are not loaded, nothing is compiled) and in one that has done it often enough to have
its code compiled, as that of an installed app is. The prompt is a turn of a chat or, where the
weights' way into memory is the question, a few words. To make the cache cold, every file of the
package is written out (fsync) and dropped (posix_fadvise DONTNEED), and fincore says that no more
of it is in memory. What lies below, such as the cache of a virtual machine's host, is what it is
for both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import jvm

from harness import process, recipes
from harness.tools import jdk

BLOCK = 1 << 20
TRIES = 20
LOADS_TO_COMPILE = 40
# A turn of a chat by the recipe's prompt, and the beginning of a text.
PROMPTS = {"a chat": "", "four words": "Once upon a time"}


class Loader:
    """A JVM that loads the model as often as it is asked to."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def load(self, prompt: str) -> tuple[float, float]:
        """Seconds until the model was loaded, and until its first token was there."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(f"{prompt}\n")
        self._child.stdin.flush()
        loaded, first = (int(word) / 1e9 for word in self._child.stdout.readline().split())
        return loaded, first


@contextmanager
def started(argv: Sequence[str | Path]) -> Iterator[Loader]:
    """A loader, from its start to its end."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        yield Loader(child)


def chill(paths: Sequence[Path]) -> None:
    """Take files out of the page cache. The kernel may keep what it has just used for a while."""
    for _ in range(TRIES):
        for path in paths:
            number = os.open(path, os.O_RDONLY)
            os.fsync(number)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(number)
        left = process.run(["fincore", "--bytes", "--noheadings", "--output", "RES", *paths]).stdout
        if not any(int(count) for count in left.split()):
            return
        time.sleep(0.2)
    raise click.ClickException(f"{sum(map(int, left.split()))} bytes stay in the page cache")


def read(paths: Sequence[Path]) -> float:
    """Seconds to read files from beginning to end."""
    block = memoryview(bytearray(BLOCK))
    begun = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
    return time.perf_counter() - begun


@click.command()
@click.argument("model", default="smollm2-135m-instruct")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
def main(model: str, rounds: int, threads: int) -> None:
    """Measure and print a table; its figures are of this machine only."""
    workspace = Path.cwd()
    recipe = recipes.find(model, workspace)
    engine = jvm.engine(recipe, workspace)
    package = sorted(path for path in engine.package.rglob("*") if path.is_file())
    shards = [path for path in package if path.suffix == ".bin"]
    size = sum(path.stat().st_size for path in shards)
    reads: dict[str, list[float]] = {"cold": [], "warm": []}
    loads: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    with (
        jvm.compiled(["FirstToken.java"], engine.classes) as program,
        tempfile.TemporaryDirectory() as cache,
    ):
        classes = jvm.joined([program, *engine.classes])
        argv: list[str | Path] = [jdk.find().java, "-cp", classes, "FirstToken", engine.library]
        argv += [engine.package, cache, str(threads), recipe.prompts[0]]
        for _ in range(rounds):
            chill(package)
            reads["cold"].append(read(shards))
            reads["warm"].append(read(shards))
            with started(argv) as loader:
                chill(package)
                loads["a chat", "new", "cold"].append(loader.load(""))
                for _ in range(LOADS_TO_COMPILE):
                    loader.load("")
                for name, prompt in PROMPTS.items():
                    chill(package)
                    loads[name, "used", "cold"].append(loader.load(prompt))
                    loads[name, "used", "warm"].append(loader.load(prompt))
            with started(argv) as loader:
                loads["a chat", "new", "warm"].append(loader.load(""))
    print(f"{recipe.name}, {size / 1e6:.0f} MB of weights, {threads} threads, {rounds} rounds\n")
    print(
        "| page cache | JVM | prompt | reading, ms | loaded, ms | first token, ms "
        "| reading / first token |"
    )
    print("|-|-|-|-|-|-|-|")
    for (name, state, cache_), times in sorted(loads.items(), key=lambda item: item[0][::-1]):
        ratios = [plain / first for plain, (_, first) in zip(reads[cache_], times, strict=True)]
        cells = [cache_, state, name, *map(_spread, (reads[cache_], *zip(*times, strict=True)))]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        print(f"| {' | '.join(cells)} |")


def _spread(seconds: Sequence[float]) -> str:
    """The median in milliseconds, with the least and the most."""
    low, middle, high = (1e3 * f(seconds) for f in (min, statistics.median, max))
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"


if __name__ == "__main__":
    main()
