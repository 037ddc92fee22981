"""Rows of packed tables."""

import numpy as np
import pytest

from harness.compiler.kernels import embedding, layout
from harness.compiler.kernels.layout import WeightFormat

ROWS = 29
SCALE = 33.75
FORMATS = [
    WeightFormat.Q3_SYM_F16,
    WeightFormat.Q4_1,
    WeightFormat("q4_sym_f16", 128),
    WeightFormat.Q4_SYM_BF16,
    WeightFormat("q4_sym_f32", 64),
    WeightFormat.Q8_0,
    WeightFormat.F16,
    WeightFormat.BF16,
    WeightFormat.F32,
]


def columns(fmt):
    """Several groups; of 3-bit values the last one is not full, nor are its last four."""
    return 90 if fmt.bits == 3 else max(96, 2 * fmt.group)


@pytest.fixture(scope="module")
def kernels(isa, build):
    functions = {}
    for fmt in FORMATS:
        for tokens, count in (("one", 1), ("many", None)):
            functions[f"{fmt.name}_{tokens}"] = embedding.embedding(
                isa, fmt, ROWS, columns(fmt), tokens=count
            )
        functions[f"{fmt.name}_scaled"] = embedding.embedding(
            isa, fmt, ROWS, columns(fmt), tokens=None, scale=SCALE
        )
    return build(functions)


def table(fmt):
    """A random table: its packed tensors and its values."""
    rng = np.random.default_rng(0)
    k = columns(fmt)
    plain = {}
    for tensor in layout.plain_tensors(fmt, ROWS, k):
        if tensor.part == "q_weight":
            raw = rng.bytes(int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize)
            values = np.frombuffer(raw, tensor.dtype).reshape(tensor.shape)
            plain[tensor.part] = values & np.uint32(2**30 - 1) if fmt.bits == 3 else values
        else:
            values = rng.standard_normal(tensor.shape).astype(np.float32)
            plain[tensor.part] = layout.narrow(values, fmt.dtype)
    packed = layout.pack(fmt, plain)
    weight = [packed[t.part] for t in layout.packed_tensors(fmt, ROWS, k)]
    return weight, layout.dequantize(fmt, plain)[:, :k]


formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)


@formats
@pytest.mark.parametrize("ids", [[28], [0, 28, 7, 8, 15, -3, 29, 2**31 - 1]])
def test_rows_are_dequantized_and_no_id_reads_beyond_the_table(kernels, fmt, ids):
    weight, values = table(fmt)
    y = np.full((len(ids), columns(fmt)), np.nan, np.float32)
    suffix = "one" if len(ids) == 1 else "many"
    kernels(f"{fmt.name}_{suffix}", *weight, np.array(ids, np.int32), y)
    assert (y == values[np.clip(ids, 0, ROWS - 1)]).all()


@formats
def test_rows_are_scaled_after_they_are_dequantized(kernels, fmt):
    weight, values = table(fmt)
    y = np.full((3, columns(fmt)), np.nan, np.float32)
    kernels(f"{fmt.name}_scaled", *weight, np.array([5, 28, 0], np.int32), y)
    assert (y == values[[5, 28, 0]] * np.float32(SCALE)).all()
