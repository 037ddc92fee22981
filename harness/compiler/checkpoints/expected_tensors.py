"""What tensors a model takes from its checkpoint, and whether the checkpoint has those."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.compiler.architectures.decoder import Decoder
from harness.compiler.architectures.parameters import Matrix, Parameter
from harness.compiler.checkpoints.mapped_tensor import MappedTensor
from harness.compiler.checkpoints.stored_values import can_decode
from harness.compiler.model_config import DecoderConfig
from harness.errors import StageFailed, UsageError


@dataclass(frozen=True, slots=True)
class Expected:
    """A tensor by Hugging Face's name."""

    name: str
    shape: tuple[int, ...]
    offset: float
    """What the family adds to its values."""


def expected_tensors(family: Decoder) -> dict[str, Expected]:
    """Every tensor that a family's model takes, by name."""
    found: dict[str, Expected] = {}
    for item in family.parameters():
        for source in item.sources:
            rows = _rows(item, source, family.config)
            if isinstance(item, Matrix):
                found[source] = Expected(source, (rows, item.columns), 0.0)
            else:
                found[source] = Expected(source, (rows,), item.offset)
    return found


def _rows(item: Parameter, source: str, config: DecoderConfig) -> int:
    if ".q_proj." in source:
        return config.num_attention_heads * config.head_dim
    if ".k_proj." in source or ".v_proj." in source:
        return config.num_key_value_heads * config.head_dim
    # Others are alone, or gate and up, which are alike.
    return (item.rows if isinstance(item, Matrix) else item.size) // len(item.sources)


def check_names(path: Path, names: Collection[str], wanted: Collection[str]) -> None:
    """Whether a file or folder has exactly the wanted tensors, all by the file's names.

    Raises `StageFailed` for missing ones, `UsageError` for ones that the model has no use for.
    """
    if unknown := set(names) - set(wanted):
        raise UsageError(
            f"{path.name} describes a model of a form that the compiler does not know",
            cause=f"it has tensors that its family has not: {_some(unknown)}",
            remedy="harness models list",
        )
    if missing := set(wanted) - set(names):
        raise StageFailed(
            f"{path.name} is not a whole model",
            cause=f"it lacks the tensors {_some(missing)}",
            remedy=f"ls -l {path}   # get it again from its source",
        )


def check_tensor(tensor: MappedTensor, shape: tuple[int, ...], announced: str) -> None:
    """Whether a tensor has this shape, which `announced` gives it, and a type that can be read.

    Raises `StageFailed` for the shape, `UsageError` for the type.
    """
    if tensor.shape != shape:
        raise StageFailed(
            f"{tensor.path.name} contradicts {announced}",
            cause=f"{tensor.name} has the shape {list(tensor.shape)}, "
            f"{announced} makes it {list(shape)}",
            remedy=f"ls -l {tensor.path}   # get it again from its source",
        )
    if not can_decode(tensor.kind):
        raise UsageError(
            f"the compiler cannot read the type {tensor.kind}",
            cause=f"{tensor.name} in {tensor.path.name} has it",
            remedy="take a checkpoint in F32, F16, BF16 or a GGUF block type",
        )


def _some(names: Collection[str]) -> str:
    ordered = [f"{name!r:.100}" for name in sorted(names)]
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
