"""The variants of a package's library, and which of them runs on a processor."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError


@dataclass(frozen=True)
class Variant:
    """Code for one instruction set among a library's functions."""

    name: str
    cpu_features: tuple[str, ...]
    """What a processor must have, as /proc/cpuinfo names it."""
    suffix: str
    """What the names of its functions end in."""


def choose(
    name: str, target: Mapping[str, Any], features: Collection[str], forced: str | None = None
) -> Variant:
    """The variant of model `name` for a processor: the best that it can run, or the `forced` one.

    `target` is the ABI's entry in the package's stamp. Raises `UsageError` if the processor can
    run none of them, or lacks what the forced one needs, or there is no such variant.
    """
    variants = [
        Variant(one["name"], tuple(one["cpu_features"]), one["suffix"])
        for one in target["variants"]
    ]
    known = ", ".join(variant.name for variant in variants)
    if forced is not None:
        variants = [variant for variant in variants if variant.name == forced]
        if not variants:
            raise UsageError(
                f"{name} has no code for {forced}",
                cause=f"its library has {known}",
                remedy=f"--cpu-variant {known.split(', ')[0]}   # or none, for the best that runs",
            )
    missing: list[str] = []
    for variant in variants:
        missing = [feature for feature in variant.cpu_features if feature not in features]
        if not missing:
            return variant
    raise UsageError(
        f"this processor cannot run {forced or name}",
        cause=f"the code needs {', '.join(missing)}, which the processor lacks",
        remedy="leave --cpu-variant out: the best that runs is taken"
        if forced
        else "harness test MODEL   # runs it on a phone",
    )
