"""Recipes found by name, read from `recipe.toml`, or made for a checkpoint that has none."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import replace
from pathlib import Path

from harness import resources
from harness.compiler.options import TILES
from harness.errors import UsageError
from harness.recipe import LOCK, FileSource, HubSource, PipSource, Recipe
from harness.toml_table import Table

__all__ = ["FileSource", "HubSource", "PipSource", "Recipe", "find", "folders", "home", "load"]

SCHEMA = "harness.recipe/1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]*")
_HUB_FILE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_CODE = re.compile(r"[A-Z]{2}[0-9]-[0-9]+(\.[0-9]+)?[mb]")


def find(text: str, workspace: Path) -> Recipe:
    """The recipe that `text` names.

    That is the name of a model, the path of a recipe or its folder, or a checkpoint without a
    recipe: a GGUF file, a Hugging Face folder, a folder that MLC compiled, or a Hugging Face id
    (`org/name` or `org/name@revision`), for which the defaults of `compiler.unnamed` stand.
    The workspace's own `models/` comes before those that ship with the harness.

    Raises `UsageError` with the nearest names if there is none, and what `load` and
    `compiler.unnamed` raise.
    """
    for folder in folders(workspace):
        if folder.name == text:
            return _pinned(load(folder / "recipe.toml"), workspace / "models" / text)
    if text.endswith(".toml"):
        return load(Path(text))
    path = _existing(text)
    if path is not None and (path / "recipe.toml").is_file():
        return load(path / "recipe.toml")
    # Loaded here, so that a recipe is found by name without what reads checkpoints.
    if path is not None:
        from harness.compiler.sources import unnamed

        return unnamed.from_path(path)
    hub_id, _, revision = text.partition("@")
    if _is_hub_id(hub_id) and (_REVISION.fullmatch(revision) or "@" not in text):
        from harness.compiler.sources import unnamed

        return unnamed.from_hub(hub_id, revision or "main", workspace / "models")
    raise _unknown_model(text, workspace)


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such home, a NUL
        return None


def _is_hub_id(text: str) -> bool:
    # A folder that is there, or a checkpoint's suffix, says that a path was meant.
    if not _HUB_ID.fullmatch(text) or Path(text).parent.exists():
        return False
    return Path(text).suffix.lower() not in {".gguf", ".safetensors", ".tar"}


def _pinned(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe that ships without a lock gets its own in `folder`: an installation is not ours."""
    source = recipe.source
    if not isinstance(source, HubSource) or source.lock.exists():
        return recipe
    return replace(recipe, source=replace(source, lock=folder / LOCK))


def home(recipe: Recipe, workspace: Path) -> Path:
    """The folder for what is found out about a model: its recipe's own.

    A recipe that ships, and a checkpoint that has none, have it under the workspace's `models/`:
    an installation is not ours, and a checkpoint's folder may hold several.
    """
    shipped = recipe.folder.parent == resources.path("models")
    if not shipped and (recipe.folder / "recipe.toml").is_file():
        return recipe.folder
    return workspace / "models" / recipe.name


def _unknown_model(text: str, workspace: Path) -> UsageError:
    if "/" in text or Path(text).suffix == ".gguf":
        return UsageError(
            f"there is no checkpoint {text}",
            cause="it is no file, no folder and no Hugging Face id",
            remedy=f"ls {Path(text).parent}",
        )
    names = [folder.name for folder in folders(workspace)]
    near = difflib.get_close_matches(text, names, n=1)
    return UsageError(
        f"there is no model {text!r}",
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"{path} is not TOML", cause=str(problem)) from problem
    reader = Table(document)
    recipe = _read(reader, path)
    if reader.problems or recipe is None:
        raise UsageError(
            f"{path} is not a recipe",
            cause="\n         ".join(reader.problems),
            remedy="compare it with models/smollm2-135m-instruct/recipe.toml",
        )
    return recipe


def _read(reader: Table, path: Path) -> Recipe | None:
    schema = reader.text("schema")
    if schema and schema != SCHEMA:
        reader.problems.append(f"schema is {schema!r}, this harness reads {SCHEMA!r}")
    name = reader.text("name", _NAME)
    title = reader.text("title")
    licence = reader.text("license")
    source = reader.table("source")
    compile_ = reader.table("compile")
    generate = reader.table("generate")
    recipe = Recipe(
        folder=path.parent.resolve(),
        name=name,
        title=title,
        license=licence,
        source=_read_source(source, path),
        quantization=compile_.text("quantization"),
        context=compile_.positive("context"),
        prefill_chunk=compile_.positive("prefill_chunk"),
        prompts=generate.texts("prompts"),
        max_tokens=generate.positive("max_tokens"),
        code=reader.text("code", _CODE) if reader.has("code") else None,
        group_size=compile_.choice("group_size", (32, 64, 128), None),
        activations=compile_.choice("activations", ("float", "int8"), None),
        calibration=_calibration(compile_, path),
        calibration_samples=compile_.positive("calibration_samples")
        if compile_.has("calibration_samples")
        else Recipe.calibration_samples,
        embedding=compile_.choice("embedding", ("as-weights", "q8", "f16"), Recipe.embedding),
        opt_level=compile_.choice("opt_level", (0, 1, 2, 3), None),
        backend=compile_.choice("backend", ("cpu", "opencl"), Recipe.backend),
        tile=compile_.choice("tile", TILES, None),
    )
    for table in (reader, source, compile_, generate):
        table.refuse_unknown()
    return None if reader.problems else recipe


def _read_source(source: Table, path: Path) -> PipSource | FileSource | HubSource:
    if source.has("pip"):
        return PipSource(
            pip=source.text("pip", _REQUIREMENT),
            pip_sha256=source.text("pip_sha256", _SHA256),
            file=source.text("file"),
            sha256=source.text("sha256", _SHA256),
        )
    if source.has("hub"):
        return HubSource(
            id=source.text("hub", _HUB_ID),
            revision=source.text("revision", _REVISION) if source.has("revision") else "main",
            files=source.texts("files", _HUB_FILE) if source.has("files") else (),
            lock=path.parent.resolve() / LOCK,
        )
    local = Path(source.text("path")).expanduser()
    expected = source.text("sha256", _SHA256) if source.has("sha256") else None
    return FileSource((path.parent / local).resolve(), expected)


def _calibration(compile_: Table, path: Path) -> str:
    """`none`, `self`, or the path of a file that is named from the recipe's folder."""
    if not compile_.has("calibration"):
        return Recipe.calibration
    value = compile_.text("calibration")
    if value in ("", "none", "self"):
        return value
    return str((path.parent / Path(value).expanduser()).resolve())
