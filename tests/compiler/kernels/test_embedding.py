"""Rows of packed tables."""

import numpy as np
import pytest

from harness.compiler.kernels import embedding, layout
from harness.compiler.kernels.layout import WeightFormat

FORMATS = (
    WeightFormat.Q4_1,
    WeightFormat.Q4_SYM_F16,
    WeightFormat.Q4_SYM_F32,
    WeightFormat.Q8_0,
    WeightFormat.F32,
)

U = 2.0**-24
"""The unit roundoff of float32: a rounded result is off by at most U times its magnitude."""
ROWS, K = 29, 96


@pytest.fixture(scope="module")
def kernels(isa, build):
    return build(
        {
            f"{fmt.name.lower()}_{tokens}": embedding.embedding(
                isa, fmt, ROWS, K, tokens=1 if tokens == "one" else None
            )
            for fmt in FORMATS
            for tokens in ("one", "many")
        }
    )


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("ids", [[28], [0, 28, 7, 8, 15, -3, 29, 2**31 - 1]])
def test_rows_are_dequantized_and_no_id_reads_beyond_the_table(kernels, fmt, ids):
    rng = np.random.default_rng(0)
    plain = {}
    for tensor in layout.plain_tensors(fmt, ROWS, K):
        if tensor.part == "q_weight":
            raw = rng.bytes(int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize)
            plain[tensor.part] = np.frombuffer(raw, tensor.dtype).reshape(tensor.shape)
        else:
            plain[tensor.part] = rng.standard_normal(tensor.shape).astype(tensor.dtype)
    packed = layout.pack(fmt, plain)
    y = np.full((len(ids), K), np.nan, np.float32)
    weight = [packed[t.part] for t in layout.packed_tensors(fmt, ROWS, K)]
    kernels(
        f"{fmt.name.lower()}_{'one' if len(ids) == 1 else 'many'}",
        *weight,
        np.array(ids, np.int32),
        y,
    )
    expected = layout.dequantize(fmt, plain)[np.clip(ids, 0, ROWS - 1)]
    # A float32 scale times 7 is rounded before it is added; all else rounds as numpy does.
    error = 16 * U * np.abs(plain["q_scale"]).max() if fmt == WeightFormat.Q4_SYM_F32 else 0
    assert (np.abs(y - expected) <= error).all()
