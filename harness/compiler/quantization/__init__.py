"""How weights are stored in a package: the quantizations by their names.

Names are MLC's where the values are: `q4f16_1` is four bits, symmetric, in groups of 32 with
float16 scales and a float16 KV cache. `q4f16_gguf` keeps the bits of the GGUF file instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import EMBEDDING
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint, CheckpointTensor
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.quantization import exact, symmetric
from harness.errors import UsageError

Plain = Mapping[str, npt.NDArray[Any]]

_EMBEDDINGS = {"q8": WeightFormat.Q8_0, "f16": WeightFormat.F16}


@dataclass(frozen=True)
class Quantization:
    """A way to store weights, and the KV cache's type that goes with it."""

    name: str
    summary: str
    kv_dtype: str
    weights: WeightFormat | None
    """The format of matrices in its usual group size; None for what the GGUF file has."""

    def formats(
        self, checkpoint: Checkpoint, group_size: int | None = None, embedding: str = "as-weights"
    ) -> dict[str, WeightFormat]:
        """The format of each matrix of a checkpoint's model by its name.

        `group_size` replaces the quantization's own; `embedding` is the form of the embedding
        table, which is the head too if they are tied: `as-weights`, `q8` or `f16`. Raises
        `UsageError` for a group size that the quantization has not, or that does not divide the
        columns of a matrix.
        """
        weights = self._grouped(group_size)
        found = {}
        for item in decoder(checkpoint.config).matrices():
            if item.name == EMBEDDING and embedding in _EMBEDDINGS:
                fmt = _EMBEDDINGS[embedding]
            elif weights is not None:
                fmt = weights
            else:
                fmt = exact.choose([checkpoint.tensors[name] for name in item.sources])
            _check_columns(checkpoint, item, fmt)
            found[item.name] = fmt
        return found

    def not_kept(
        self, checkpoint: Checkpoint, formats: Mapping[str, WeightFormat]
    ) -> dict[str, str]:
        """For a quantization that keeps values: the tensors that it could not, and their forms."""
        if self.weights is not None:
            return {}
        return {
            name: f"{checkpoint.tensors[name].kind} as {formats[item.name]}"
            for item in decoder(checkpoint.config).matrices()
            for name in item.sources
            if formats[item.name] not in exact.forms(checkpoint.tensors[name].kind)
        }

    def _grouped(self, size: int | None) -> WeightFormat | None:
        if size is None or (self.weights is not None and self.weights.group == size):
            return self.weights
        if self.weights is None or not self.weights.quantized:
            raise UsageError(
                f"{self.name} takes no group size",
                cause=f"its weights are {self.summary}",
                remedy=f"--quant q4f16_1 --group-size {size}",
            )
        try:
            return WeightFormat(self.weights.name, size)
        except ValueError as problem:
            raise UsageError(
                f"{self.name} has no groups of {size}",
                cause=str(problem),
                remedy=f"--quant {self.name}   # without --group-size",
            ) from problem


def _quantization(name: str, summary: str, kv_dtype: str, weights: WeightFormat | None) -> None:
    QUANTIZATIONS[name] = Quantization(name, summary, kv_dtype, weights)


QUANTIZATIONS: dict[str, Quantization] = {}
_KEPT = "the GGUF file's own Q4_0, Q4_1 and Q8_0 values, bit for bit"
_FOUR = "4 bits, symmetric, {} scales (MLC's)"
_quantization("q4f16_gguf", _KEPT, "float16", None)
_quantization("q4f16_1", _FOUR.format("float16"), "float16", WeightFormat.Q4_SYM_F16)
_quantization("q4f16_0", "the values of q4f16_1", "float16", WeightFormat.Q4_SYM_F16)
_quantization("q4bf16_1", _FOUR.format("bfloat16"), "float16", WeightFormat.Q4_SYM_BF16)
_quantization("q4bf16_0", "the values of q4bf16_1", "float16", WeightFormat.Q4_SYM_BF16)
_quantization("q4f32_1", _FOUR.format("float32"), "float32", WeightFormat.Q4_SYM_F32)
_quantization(
    "q3f16_1", "3 bits, symmetric, float16 scales (MLC's)", "float16", WeightFormat.Q3_SYM_F16
)
_quantization("q8f16_1", "8 bits, symmetric, float16 scales", "float16", WeightFormat.Q8_0)
_quantization("q0f16", "float16, not quantized", "float16", WeightFormat.F16)
_quantization("q0bf16", "bfloat16, not quantized", "float16", WeightFormat.BF16)
_quantization("q0f32", "float32, not quantized", "float32", WeightFormat.F32)


def find(name: str) -> Quantization:
    """The quantization of this name; raises `UsageError` if there is none."""
    try:
        return QUANTIZATIONS[name]
    except KeyError:
        raise UsageError(
            f"there is no quantization {name!r}",
            cause=f"known: {', '.join(QUANTIZATIONS)}",
            remedy=f"--quant {next(iter(QUANTIZATIONS))}",
        ) from None


def store(fmt: WeightFormat, tensors: Sequence[CheckpointTensor]) -> Plain:
    """The plain tensors (`kernels.layout.plain_tensors`) of the stacked tensors in a format.

    Values that the format holds exactly are kept; others go to the nearest, in the quantized
    formats by MLC's rule (`symmetric`). Raises `UsageError` if some are too large for the format.
    """
    if all(fmt in exact.forms(tensor.kind) for tensor in tensors) and fmt.quantized:
        parts = [exact.convert(tensor, fmt) for tensor in tensors]
    elif fmt.quantized:
        parts = [symmetric.convert(tensor, fmt) for tensor in tensors]
    else:
        parts = [exact.narrowed(tensor, fmt) for tensor in tensors]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_columns(checkpoint: Checkpoint, item: Matrix, fmt: WeightFormat) -> None:
    try:
        layout.packed_tensors(fmt, item.rows, item.columns)
    except ValueError as problem:
        smallest = fmt.group <= layout.GROUP
        raise UsageError(
            f"{item.name} of {checkpoint.name} has {item.columns} columns, "
            f"which groups of {max(fmt.group, layout.GROUP)} do not divide",
            cause=str(problem),
            remedy="--quant q3f16_1" if smallest else f"--group-size {layout.GROUP}",
        ) from problem
