"""The checkpoint's own values: GGUF's block types without loss, or everything in float32.

Block layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
(`block_q4_0`, `block_q4_1`, `block_q8_0`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoint import CheckpointTensor
from harness.compiler.kernels.layout import WeightFormat, nibbles_to_words
from harness.errors import UsageError

Plain = Mapping[str, npt.NDArray[Any]]
_FORMATS = {
    "Q4_0": WeightFormat.Q4_1,
    "Q4_1": WeightFormat.Q4_1,
    "Q8_0": WeightFormat.Q8_0,
}


def choose(tensors: Sequence[CheckpointTensor]) -> WeightFormat:
    """The format that holds these stacked tensors without loss; raises `UsageError` if none."""
    for tensor in tensors:
        if tensor.kind not in _FORMATS:
            raise UsageError(
                f"q4f16_gguf cannot keep {tensor.name}, which is stored as {tensor.kind}",
                cause=f"it keeps the types {', '.join(_FORMATS)}",
                remedy="--quant q4f16_1",
            )
    formats = {_FORMATS[tensor.kind] for tensor in tensors}
    if len(formats) > 1:
        kinds = ", ".join(f"{tensor.name} {tensor.kind}" for tensor in tensors)
        raise UsageError(
            "q4f16_gguf cannot keep matrices of different types that are multiplied as one",
            cause=kinds,
            remedy="--quant q4f16_1",
        )
    return formats.pop()


def convert(tensors: Sequence[CheckpointTensor]) -> Plain:
    """The plain tensors of the stacked tensors in the format that `choose` gives."""
    decode = _decode_q8_0 if choose(tensors) == WeightFormat.Q8_0 else _decode_q4
    parts = [decode(tensor) for tensor in tensors]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def float_values(tensors: Sequence[CheckpointTensor]) -> Plain:
    """The values of the stacked tensors in float32."""
    return {"weight": np.concatenate([tensor.values() for tensor in tensors])}


def _decode_q8_0(tensor: CheckpointTensor) -> Plain:
    # f16 scale, then 32 signed bytes
    blocks = tensor.stored().reshape(tensor.shape[0], -1, 34)
    return {
        "q_weight": np.ascontiguousarray(blocks[..., 2:]).view(np.int8).reshape(tensor.shape),
        "q_scale": np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0],
    }


def _decode_q4(tensor: CheckpointTensor) -> Plain:
    # f16 scale, (Q4_1: f16 minimum,) then 16 bytes: column j in the low, 16 + j in the high nibble
    has_minimum = tensor.kind == "Q4_1"
    head = 4 if has_minimum else 2
    blocks = tensor.stored().reshape(tensor.shape[0], -1, head + 16)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
    if has_minimum:
        minima = np.ascontiguousarray(blocks[..., 2:4]).view(np.float16)[..., 0]
    else:
        # Q4_0 is (q - 8) * scale: times -8 is exact in float16 unless it overflows.
        minima = scales * np.float16(-8)
        if not np.isfinite(minima).all():
            raise UsageError(
                f"q4f16_gguf cannot keep {tensor.name}",
                cause="a scale of it is too large for float16 when multiplied by 8",
                remedy="--quant q4f32_1",
            )
    pairs = blocks[..., head:]
    nibbles = np.concatenate([pairs & 15, pairs >> 4], axis=-1).reshape(tensor.shape)
    return {"q_weight": nibbles_to_words(nibbles), "q_scale": scales, "q_min": minima}
