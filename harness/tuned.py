"""What runs a model fastest on a processor: `tuned/<soc>.toml` beside the model's recipe.

`harness tune` writes the file from measurements, whole or not at all. Whatever runs the model on a
device with that processor reads it.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import console, files, recipes
from harness.compiler.kernels.isa import Isa
from harness.compiler.options import TILES
from harness.errors import UsageError
from harness.recipe import Recipe
from harness.toml_table import Table
from harness.types import MOST_THREADS

SCHEMA = "harness.tuned/1"
FOLDER = "tuned"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Choice:
    """How a model runs; None is what it does by itself."""

    threads: int | None = None
    cpu_variant: str | None = None
    tile: int | None = None
    """Tokens of a prompt that share unpacked weights."""

    def __str__(self) -> str:
        said = []
        if self.threads is not None:
            said.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        if self.cpu_variant is not None:
            said.append(self.cpu_variant)
        if self.tile is not None:
            said.append(f"tiles of {self.tile} tokens")
        return ", ".join(said) or "the defaults"


@dataclass(frozen=True)
class Times:
    """Medians of the rounds, in ms a token; a spread is the distance between the quartiles."""

    decode_ms: float
    decode_spread_ms: float
    prefill_ms: float
    prefill_spread_ms: float


@dataclass(frozen=True)
class Tuned:
    """A choice, and what it was made from: its own times and the defaults'."""

    soc: str
    model: str
    quantization: str
    device: str
    virtual: bool
    harness: str
    """The version that measured."""
    date: str
    """The day, such as "2026-11-29", in UTC."""
    rounds: int
    choice: Choice
    chosen: Times
    default: Times


def find(recipe: Recipe, soc: str, workspace: Path) -> tuple[Tuned, Path] | None:
    """What was chosen for a model on a processor, and the file that says so.

    The workspace's own comes before what ships with the recipe. Raises what `load` raises, and
    `UsageError` for a file that is another model's or another processor's.
    """
    if not soc:
        return None
    for folder in (recipes.home(recipe, workspace), recipe.folder):
        path = path_in(folder, soc)
        if path.exists():
            found = load(path)
            for what, says, asked in (
                ("model", found.model, recipe.name),
                ("processor", found.soc, soc),
            ):
                if says != asked:
                    raise _wrong(path, f"it is of the {what} {says}, not of {asked}")
            return found, path
    return None


def path_in(folder: Path, soc: str) -> Path:
    """Where the choice for a processor (a name as `Device.soc` has it) lies in a model's folder."""
    return folder / FOLDER / f"{soc}.toml"


def save(path: Path, tuned: Tuned) -> None:
    """Write a choice; the file is there whole or not at all.

    Raises `StageFailed` when it cannot be written or the disk is full.
    """
    files.write_text(path, text(tuned))


def text(tuned: Tuned) -> str:
    """The file's text."""
    facts = {"schema": SCHEMA, **asdict(tuned)}
    choice, chosen, default = (facts.pop(name) for name in ("choice", "chosen", "default"))
    lines = ["# Written by `harness tune`; remove it to go back to the defaults."]
    lines += _lines(facts)
    lines += ["", "# What is not named here is as it is by itself.", "[choice]", *_lines(choice)]
    lines += ["", "# Milliseconds a token: medians, and distances between the quartiles."]
    lines += ["[chosen]", *_lines(chosen), "", "[default]", *_lines(default)]
    return "\n".join(lines) + "\n"


def _lines(values: dict[str, object]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: object) -> str:
    # A string of JSON is one of TOML, once no control character and no surrogate is in it.
    return json.dumps(console.clean(value) if isinstance(value, str) else value, ensure_ascii=False)


def load(path: Path) -> Tuned:
    """Read and check a choice; all that is wrong with it is told at once in one `UsageError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(
            f"cannot read {path}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -l {path}",
        ) from problem
    # ValueError: no TOML, no UTF-8, or a number of thousands of digits.
    except (ValueError, RecursionError) as problem:
        raise _wrong(path, f"it is not TOML: {problem}") from problem
    table = Table(document)
    tuned = _read(table)
    if table.problems:
        raise _wrong(path, "\n         ".join(table.problems))
    return tuned


def _read(table: Table) -> Tuned:
    schema = table.text("schema")
    if schema and schema != SCHEMA:
        table.problems.append(f"schema is {schema!r}, this harness reads {SCHEMA!r}")
    choice = table.table("choice")
    times = {name: table.table(name) for name in ("chosen", "default")}
    tuned = Tuned(
        soc=table.text("soc"),
        model=table.text("model"),
        quantization=table.text("quantization"),
        device=table.text("device"),
        virtual=table.flag("virtual"),
        harness=table.text("harness"),
        date=table.text("date", _DATE),
        rounds=table.positive("rounds"),
        choice=Choice(
            threads=_read_threads(choice),
            cpu_variant=choice.choice("cpu_variant", tuple(isa.value for isa in Isa), None),
            tile=choice.choice("tile", TILES, None),
        ),
        chosen=_read_times(times["chosen"]),
        default=_read_times(times["default"]),
    )
    for one in (table, choice, *times.values()):
        one.refuse_unknown()
    return tuned


def _read_threads(table: Table) -> int | None:
    if not table.has("threads"):
        return None
    threads = table.positive("threads")
    if threads > MOST_THREADS:
        table.problems.append(f"choice.threads is {threads}, it must be {MOST_THREADS} or less")
    return threads


def _read_times(table: Table) -> Times:
    return Times(
        decode_ms=table.amount("decode_ms"),
        decode_spread_ms=table.amount("decode_spread_ms"),
        prefill_ms=table.amount("prefill_ms"),
        prefill_spread_ms=table.amount("prefill_spread_ms"),
    )


def _wrong(path: Path, cause: str) -> UsageError:
    return UsageError(
        f"{path} is no choice of `harness tune`",
        cause=cause,
        remedy=f"rm {path}   # then the defaults hold, until `harness tune` is run again",
    )
