"""How weights are stored in a package: the quantizations by their names.

Names are MLC's where the values are: `q4f16_1` is four bits, symmetric, in groups of 32 with
float16 scales and a float16 KV cache. `q4f16_gguf` keeps the bits of the GGUF file instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from harness.compiler.checkpoint import CheckpointTensor
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.quantization import exact, symmetric
from harness.errors import UsageError

Plain = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Quantization:
    """A way to store weights, and the KV cache's type that goes with it.

    `choose(tensors)` gives the format of a matrix that is made of these tensors, `convert(tensors)`
    its plain tensors in that format (`kernels.layout.plain_tensors`).
    """

    name: str
    summary: str
    kv_dtype: str
    choose: Callable[[Sequence[CheckpointTensor]], WeightFormat]
    convert: Callable[[Sequence[CheckpointTensor]], Plain]


QUANTIZATIONS = {
    quantization.name: quantization
    for quantization in (
        Quantization(
            "q4f16_gguf",
            "the GGUF file's own Q4_0, Q4_1 and Q8_0 values, bit for bit",
            "float16",
            exact.choose,
            exact.convert,
        ),
        Quantization(
            "q4f16_1",
            "4 bits, symmetric, groups of 32, float16 scales (MLC's)",
            "float16",
            lambda tensors: WeightFormat.Q4_SYM_F16,
            lambda tensors: symmetric.convert(tensors, "float16"),
        ),
        Quantization(
            "q4f32_1",
            "4 bits, symmetric, groups of 32, float32 scales (MLC's)",
            "float32",
            lambda tensors: WeightFormat.Q4_SYM_F32,
            lambda tensors: symmetric.convert(tensors, "float32"),
        ),
        Quantization(
            "q0f32",
            "float32, not quantized",
            "float32",
            lambda tensors: WeightFormat.F32,
            exact.float_values,
        ),
    )
}


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
