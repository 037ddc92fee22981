"""Rounding to nearest in symmetric groups: MLC's rule for its `q3` and `q4` forms.

A group's scale is its largest magnitude over the largest integer; a value is stored as
round(w / scale + zero), halves to the even integer. In the float16 forms MLC computes each of
these steps in float16, and so does this; in the others float32 carries them.
Source: mlc_llm/quantization/group_quantization.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoints.checkpoint import CheckpointTensor
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.numerics.parts import side_by_side
from harness.errors import UsageError

Plain = Mapping[str, npt.NDArray[Any]]

_BLOCK_VALUES = 1 << 20


def convert(tensor: CheckpointTensor, fmt: WeightFormat) -> Plain:
    """`q_weight` and `q_scale` of a tensor [rows, columns], in blocks of rows side by side."""
    rows, columns = tensor.shape
    step = max(1, _BLOCK_VALUES // columns)

    def block(start: int) -> Plain:
        return round_to_nearest(tensor.row_values(start, min(start + step, rows)), fmt)

    blocks = side_by_side(block, range(0, rows, step))
    found = {name: np.concatenate([one[name] for one in blocks]) for name in blocks[0]}
    if not np.isfinite(layout.widen(found["q_scale"], fmt.dtype)).all():
        raise UsageError(
            f"{tensor.name} cannot be stored with scales in {fmt.dtype}",
            cause="a value of it is too large",
            remedy="--quant q4bf16_1",
        )
    return found


def round_to_nearest(values: npt.NDArray[np.float32], fmt: WeightFormat) -> Plain:
    """The plain tensors of float32 values [rows, columns] in a symmetric format."""
    largest = np.float32(fmt.zero or 127)
    computed = "float16" if fmt.dtype == "float16" and fmt.bits < 8 else "float32"

    def as_computed(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return layout.widen(layout.narrow(x, computed), computed)

    rows, columns = values.shape
    padded = np.pad(values, ((0, 0), (0, -columns % fmt.group)))
    with np.errstate(over="ignore", invalid="ignore"):
        wide = layout.widen(layout.narrow(padded, fmt.dtype), fmt.dtype) if fmt.zero else padded
        groups = wide.reshape(rows, -1, fmt.group)
        scales = layout.narrow(np.abs(groups).max(-1) / largest, fmt.dtype)
        divisors = layout.widen(scales, fmt.dtype)[..., None]
        # A group of zeros has the scale 0 and the integers of zero.
        steps = np.divide(groups, divisors, out=np.zeros_like(groups), where=divisors != 0)
        shifted = as_computed(as_computed(steps) + np.float32(fmt.zero))
        integers = np.clip(np.rint(shifted), fmt.zero - largest, fmt.zero + largest)
        return {"q_weight": stored_integers(integers.reshape(rows, -1), fmt), "q_scale": scales}


def stored_integers(integers: npt.NDArray[Any], fmt: WeightFormat) -> npt.NDArray[Any]:
    """`q_weight` of a symmetric format from its integers [rows, columns], zero included."""
    if fmt.bits == 8:
        return integers.astype(np.int8)
    to_words = layout.nibbles_to_words if fmt.bits == 4 else layout.threes_to_words
    return to_words(integers.astype(np.uint8))
