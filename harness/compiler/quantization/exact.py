"""The checkpoint's own values: block types and formats without loss, and unquantized weights.

Block layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
(`block_q4_0`, `block_q4_1`, `block_q8_0`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoints.checkpoint import CheckpointTensor
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat, nibbles_to_words
from harness.compiler.mlc.format_rows import format_of, from_rows
from harness.errors import UsageError

Plain = Mapping[str, npt.NDArray[Any]]

_FORMS = {
    "Q4_0": (WeightFormat.Q4_1, WeightFormat.Q8_0),
    "Q4_1": (WeightFormat.Q4_1,),
    "Q8_0": (WeightFormat.Q8_0,),
    "F16": (WeightFormat.F16, WeightFormat.F32),
    "BF16": (WeightFormat.BF16, WeightFormat.F32),
    "F32": (WeightFormat.F32,),
}


def forms(kind: str) -> tuple[WeightFormat, ...]:
    """The formats that hold a stored type's values without loss, the smallest first."""
    fmt = format_of(kind)
    return (fmt,) if fmt is not None else _FORMS.get(kind, ())


def choose(tensors: Sequence[CheckpointTensor]) -> WeightFormat:
    """The smallest format that holds these stacked tensors without loss; float16 if none does."""
    for fmt in forms(tensors[0].kind):
        if all(fmt in forms(tensor.kind) for tensor in tensors):
            return fmt
    return WeightFormat.F16


def convert(tensor: CheckpointTensor, fmt: WeightFormat) -> Plain:
    """The plain tensors of a tensor that is quantized already, in one of its `forms`."""
    if format_of(tensor.kind) == fmt:
        return from_rows(fmt, tensor.stored(), tensor.shape[1])
    if tensor.kind == "Q8_0":
        return _decode_q8_0(tensor)
    scales, minima, nibbles = _decode_q4(tensor)
    if fmt == WeightFormat.Q8_0:
        return {"q_weight": nibbles.astype(np.int8) - np.int8(8), "q_scale": scales}
    if minima is None:
        # Q4_0 is (q - 8) * scale: times -8 is exact in float16 unless it overflows.
        minima = scales * np.float16(-8)
        if not np.isfinite(minima).all():
            raise _too_large(tensor, "a scale of it times 8", "--quant q4f32_1")
    return {"q_weight": nibbles_to_words(nibbles), "q_scale": scales, "q_min": minima}


def narrowed(tensor: CheckpointTensor, fmt: WeightFormat) -> Plain:
    """The values of a tensor in float32, float16 or bfloat16, rounded to the nearest."""
    with np.errstate(over="ignore"):
        stored = layout.narrow(tensor.values(), fmt.dtype)
    if fmt.dtype == "float16" and not np.isfinite(stored).all():
        raise _too_large(tensor, "a value of it", "--quant q0bf16")
    return {"weight": stored}


def _decode_q8_0(tensor: CheckpointTensor) -> Plain:
    # f16 scale, then 32 signed bytes
    blocks = tensor.stored().reshape(tensor.shape[0], -1, 34)
    return {
        "q_weight": np.ascontiguousarray(blocks[..., 2:]).view(np.int8).reshape(tensor.shape),
        "q_scale": np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0],
    }


def _decode_q4(
    tensor: CheckpointTensor,
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16] | None, npt.NDArray[np.uint8]]:
    # f16 scale, (Q4_1: f16 minimum,) then 16 bytes: column j in the low, 16 + j in the high nibble
    has_minimum = tensor.kind == "Q4_1"
    head = 4 if has_minimum else 2
    blocks = tensor.stored().reshape(tensor.shape[0], -1, head + 16)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
    minima = np.ascontiguousarray(blocks[..., 2:4]).view(np.float16)[..., 0]
    pairs = blocks[..., head:]
    nibbles = np.concatenate([pairs & 15, pairs >> 4], axis=-1).reshape(tensor.shape)
    return scales, minima if has_minimum else None, nibbles


def _too_large(tensor: CheckpointTensor, what: str, remedy: str) -> UsageError:
    return UsageError(
        f"{tensor.name} cannot be stored in float16",
        cause=f"{what} is too large for it",
        remedy=remedy,
    )
