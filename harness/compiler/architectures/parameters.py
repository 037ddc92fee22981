"""The parameters of a model library: which tensors it takes, made of which of a checkpoint.

Names are MLC's; matrices that are multiplied with the same input are fused as MLC fuses them.
"""

from __future__ import annotations

from dataclasses import dataclass

SUFFIX = ".rows8"
"""Ends the names of packed tensors, so that no reader of MLC's plain layout takes them for it."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A parameter kept in float32, such as a norm's weight: its sources end to end."""

    name: str
    size: int
    sources: tuple[str, ...]
    offset: float = 0.0
    """What is added to the checkpoint's values: Gemma stores norms' weights less one."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix [rows, columns]: the rows of `sources`, one below the other."""

    name: str
    rows: int
    columns: int
    sources: tuple[str, ...]

    def tensor(self, part: str) -> str:
        """The name of one of its packed tensors."""
        return f"{self.name}.{part}{SUFFIX}"


Parameter = Vector | Matrix


def vector(name: str, size: int, *, offset: float = 0.0) -> Vector:
    """A vector that the checkpoint has under the same name."""
    return Vector(name, size, (name,), offset)


def matrix(name: str, rows: int, columns: int) -> Matrix:
    """A matrix that is one `weight` of the checkpoint."""
    return Matrix(name, rows, columns, (f"{name}.weight",))
