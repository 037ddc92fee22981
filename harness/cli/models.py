"""`harness models`: the recipes that the harness knows, and the archives that were made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from harness import console, recipes
from harness.cli import options
from harness.recipe import Recipe


@click.group("models")
def command() -> None:
    """List and show recipes."""


@command.command("list")
@options.workspace
@options.as_json
def list_models(as_json: bool, **flags: Any) -> None:
    """List every recipe by name."""
    config = options.settle(flags)
    found = [recipes.load(folder / "recipe.toml") for folder in recipes.folders(config.workspace)]
    if as_json:
        options.print_json("harness.models/1", models=[_document(recipe) for recipe in found])
        return
    width = max((len(recipe.name) for recipe in found), default=0)
    for recipe in found:
        click.echo(f"{recipe.name:<{width}}  {recipe.quantization:<12}  {recipe.title}")


@command.command("show")
@click.argument("model")
@options.workspace
@options.as_json
def show(model: str, as_json: bool, **flags: Any) -> None:
    """Show one recipe."""
    recipe = recipes.find(model, options.settle(flags).workspace)
    if as_json:
        options.print_json("harness.model/1", **_document(recipe))
        return
    for key, value in _document(recipe).items():
        click.echo(f"{key:<20} {value if isinstance(value, str) else json.dumps(value)}")


@command.command("versions")
@options.workspace
@options.as_json
def list_versions(as_json: bool, **flags: Any) -> None:
    """List the archives that were made, by name and version."""
    from harness.compiler.packages import versions

    made = versions.read_versions(options.settle(flags).workspace)
    if as_json:
        document = [dataclasses.asdict(entry) for entry in made]
        options.print_json("harness.versions/1", versions=document)
        return
    width = max((len(entry.archive) for entry in made), default=0)
    for entry in sorted(made, key=lambda entry: (entry.archive, entry.version)):
        size = console.size(entry.size)
        click.echo(
            f"{entry.archive:<{width}}  {entry.version:>3}  {entry.date}  {size:>10}  "
            f"{entry.sha256[:16]}  {entry.model}  {entry.quantization}"
        )


def _document(recipe: Recipe) -> dict[str, Any]:
    document = dataclasses.asdict(recipe)
    document["folder"] = str(recipe.folder)
    for key, value in document["source"].items():
        document["source"][key] = str(value) if isinstance(value, Path) else value
    return document
