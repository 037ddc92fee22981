"""What MLC calls a model's parameters, and how its quantizations store them.

Sources: mlc_llm/model/*/*_loader.py for names, mlc_llm/quantization/quantization.py and
group_quantization.py for the forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures.decoder import EMBEDDING, HEAD, Decoder
from harness.compiler.architectures.parameters import Matrix, Parameter
from harness.compiler.checkpoints.expected_tensors import expected_tensors
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat

Array = npt.NDArray[Any]
Plain = Mapping[str, Array]
"""The tensors of a matrix by part: `weight`, or `q_weight` and `q_scale`."""

# MLC's Gemma 3 is part of a multimodal model, and multiplies q, k and v one by one.
_PREFIXES = {"gemma3": "language_model."}
_UNFUSED = ("gemma3",)
_EIGHT_BIT_ZERO = 127


@dataclass(frozen=True)
class Form:
    """A quantization of MLC's: how matrices are stored, and the type of all that is not."""

    weights: WeightFormat
    dtype: str
    """The type of norms and biases."""
    transposed: bool = False
    """Whether matrices are stored by columns (MLC's KN), but for the embedding."""
    ends: WeightFormat | None = None
    """The format of embedding and head, where it is another."""

    def format(self, matrix: str) -> WeightFormat:
        """The format of a matrix by its name in `architectures`."""
        return self.ends if self.ends and matrix in (EMBEDDING, HEAD) else self.weights

    def by_columns(self, matrix: str) -> bool:
        """Whether this matrix is stored by columns."""
        return self.transposed and self.format(matrix).quantized and matrix != EMBEDDING


FORMS = {
    "q0f32": Form(WeightFormat.F32, "float32"),
    "q0f16": Form(WeightFormat.F16, "float16"),
    "q0bf16": Form(WeightFormat.BF16, "bfloat16"),
    "q3f16_0": Form(WeightFormat.Q3_SYM_F16, "float16", transposed=True),
    "q3f16_1": Form(WeightFormat.Q3_SYM_F16, "float16"),
    "q4f16_0": Form(WeightFormat.Q4_SYM_F16, "float16", transposed=True),
    "q4f16_1": Form(WeightFormat.Q4_SYM_F16, "float16"),
    "q4f16_2": Form(WeightFormat.Q4_SYM_F16, "float16", ends=WeightFormat.F16),
    "q4bf16_0": Form(WeightFormat.Q4_SYM_BF16, "bfloat16", transposed=True),
    "q4bf16_1": Form(WeightFormat.Q4_SYM_BF16, "bfloat16"),
    "q4f32_1": Form(WeightFormat.Q4_SYM_F32, "float32"),
    "q8f16_1": Form(WeightFormat.Q8_0, "float16"),
}
"""By name. `q8f16_1` is how MLC's group quantization stores int8; its registry does not list it."""


@dataclass(frozen=True)
class MlcParameter:
    """A parameter of MLC's model: rows of one of ours."""

    name: str
    """Of a matrix without the part."""
    item: Parameter
    sources: tuple[str, ...]
    """Hugging Face's names of the tensors whose rows it has, in order."""
    first: int
    """The first of its rows in `item`, or of a vector's numbers."""
    count: int


def parameters(family: Decoder) -> list[MlcParameter]:
    """Every parameter of MLC's model of a family, in our order."""
    prefix = _PREFIXES.get(family.family, "")
    split = family.family in _UNFUSED
    expected = expected_tensors(family)
    found: list[MlcParameter] = []
    for item in family.parameters():
        size = item.rows if isinstance(item, Matrix) else item.size
        if not split or f".{family.qkv}" not in item.name:
            found.append(MlcParameter(prefix + item.name, item, item.sources, 0, size))
            continue
        first = 0
        for source in item.sources:
            count = expected[source].shape[0]
            name = source.removesuffix(".weight") if isinstance(item, Matrix) else source
            found.append(MlcParameter(prefix + name, item, (source,), first, count))
            first += count
    return found


def to_mlc(fmt: WeightFormat, plain: Plain, by_columns: bool) -> dict[str, Array]:
    """MLC's tensors of a matrix in a format that it has, by part.

    Raises ValueError if the values include one that MLC's 8-bit words have not: -128.
    """
    found = dict(plain)
    if fmt.bits == 8:
        if plain["q_weight"].min(initial=0) < -_EIGHT_BIT_ZERO:
            raise ValueError("MLC's 8-bit words hold -127 to 127, not -128")
        shifted = plain["q_weight"].astype(np.int16) + _EIGHT_BIT_ZERO
        found["q_weight"] = shifted.astype(np.uint8).view(np.uint32)
    if by_columns:
        found = {part: np.ascontiguousarray(values.T) for part, values in found.items()}
    return found


def from_mlc(fmt: WeightFormat, tensors: Plain) -> dict[str, Array]:
    """The plain tensors of a matrix from MLC's tensors by rows; the inverse of `to_mlc`.

    Raises ValueError if they hold an integer that stands for no value of the format.
    """
    found = {part: np.ascontiguousarray(values) for part, values in tensors.items()}
    words = found.get("q_weight")
    if words is None:
        return found
    if fmt.bits == 3 and (words >> 30).any():
        raise ValueError("q_weight has words with more than ten 3-bit values")
    if fmt.bits == 8:
        bytes_ = words.view(np.uint8)
        if bytes_.max(initial=0) > 2 * _EIGHT_BIT_ZERO:
            raise ValueError("q_weight has the byte 255, which stands for no value")
        found["q_weight"] = (bytes_.astype(np.int16) - _EIGHT_BIT_ZERO).astype(np.int8)
    return found


def mlc_tensors(
    fmt: WeightFormat, rows: int, columns: int, by_columns: bool
) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and the type of each of MLC's tensors of a matrix, by part."""
    found = {}
    for tensor in layout.plain_tensors(fmt, rows, columns):
        shape, dtype = tensor.shape, fmt.dtype
        if tensor.part == "q_weight":
            dtype = "uint32"
            shape = (rows, columns // 4) if fmt.bits == 8 else shape
        found[tensor.part] = (shape[::-1] if by_columns else shape, dtype)
    return found
