"""Four bits, symmetric, in groups of 32 columns: MLC's `q4f16_1` and `q4f32_1`.

A group's scale is its largest magnitude over 7; a value is stored as round(w / scale) + 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoint import CheckpointTensor
from harness.compiler.kernels.layout import GROUP, SYMMETRIC_ZERO, nibbles_to_words


def convert(
    tensors: Sequence[CheckpointTensor], scale_dtype: str
) -> Mapping[str, npt.NDArray[Any]]:
    """`q_weight` u32[rows, k/8] and `q_scale` [rows, k/32] of the stacked tensors."""
    parts = [_quantize(tensor.values(), scale_dtype) for tensor in tensors]
    return {
        "q_weight": np.concatenate([words for words, _ in parts]),
        "q_scale": np.concatenate([scales for _, scales in parts]),
    }


def _quantize(
    values: npt.NDArray[np.float32], scale_dtype: str
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[Any]]:
    rows = len(values)
    groups = values.reshape(rows, -1, GROUP)
    # The scale is rounded to its type first: the nibbles then make up for that error too.
    scales = (np.abs(groups).max(-1) / SYMMETRIC_ZERO).astype(scale_dtype)
    wide = scales.astype(np.float32)[..., None]
    steps = np.divide(groups, wide, out=np.zeros_like(groups), where=wide > 0)
    nibbles = np.clip(np.rint(steps) + SYMMETRIC_ZERO, 0, 2 * SYMMETRIC_ZERO).astype(np.uint8)
    return nibbles_to_words(nibbles.reshape(rows, -1)), scales
