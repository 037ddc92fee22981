"""Float32 values of stored rows: plain numbers, and GGUF's block types.

Types go by GGUF's names (F32, F16, BF16, Q4_0, Q6_K, ...). The block types are decoded by `gguf`
from PyPI, which is kept beside their definition.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants


def decode(kind: str, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The values, float32 [rows, columns], of bytes [rows, bytes of a row]. All kinds are exact."""
    if kind == "F32":
        return rows.view("<f4").astype(np.float32)
    if kind == "F16":
        return rows.view("<f2").astype(np.float32)
    if kind == "BF16":
        # The upper half of a float32.
        return (rows.view("<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore"):  # damaged scales: whoever reads looks for numbers that are none
        values: npt.NDArray[np.float32] = quants.dequantize(rows, GGMLQuantizationType[kind])
    return values


@lru_cache
def can_decode(kind: str) -> bool:
    """Whether `decode` knows a type."""
    if kind in ("F32", "F16", "BF16"):
        return True
    if kind not in GGMLQuantizationType.__members__:
        return False
    _, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    try:
        decode(kind, np.zeros((1, block_bytes), np.uint8))
    except NotImplementedError:
        return False
    return True
