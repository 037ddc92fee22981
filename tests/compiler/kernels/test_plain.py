"""The plain kernels, unscheduled and scheduled, against float64 on the same dequantized values."""

import math

import numpy as np
import pytest

from harness.compiler.kernels import layout, plain, plain_cache
from harness.compiler.kernels.heads import Heads
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.kernels.plain_cache import Items

U = 2.0**-24
"""The unit roundoff of float32."""
ROWS = 21
EPS = 1e-5
CAP = 1.5
HEADS = Heads(4, 2, 32, "float16")
FORMATS = [
    WeightFormat.Q3_SYM_F16,
    WeightFormat.Q4_1,
    WeightFormat("q4_sym_bf16", 64),
    WeightFormat.Q4_SYM_F32,
    WeightFormat.Q8_0,
    WeightFormat.F16,
    WeightFormat.BF16,
    WeightFormat.F32,
]
SOME = WeightFormat.Q4_1
formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)
levels = pytest.mark.parametrize("level", [0, 1])


def columns(fmt):
    """Several groups; of 3-bit values the last one is not full."""
    return 96 if fmt.group <= 40 else 2 * fmt.group


@pytest.fixture(scope="module")
def isa():
    """One is enough: plain definitions know nothing of instruction sets."""
    return Isa.X86_64_V3


@pytest.fixture(scope="module")
def kernels(isa, build):
    import tvm

    from harness.compiler.passes.schedules import cpu_schedules

    k = columns(SOME)
    functions = {}
    for fmt in FORMATS:
        sizes = (isa, fmt, ROWS, columns(fmt))
        functions[f"product_{fmt.name}"] = plain.matmul(*sizes, tokens=None)
        functions[f"rows_{fmt.name}"] = plain.embedding(*sizes, tokens=None, scale=3.0)
    functions["all"] = plain.matmul(
        *(isa, SOME, ROWS, k),
        **{"tokens": 1, "bias": True, "softcap": CAP, "residual": True, "dtype": "float16"},
    )
    for activation in ("silu", "gelu_tanh"):
        functions[activation] = plain.gated_matmul(
            isa, SOME, 16, k, tokens=None, activation=activation
        )
    functions["norm"] = plain.rms_norm(isa, k, EPS, tokens=1)
    functions["norm_add"] = plain.norm_add(isa, k, EPS, tokens=None)
    functions = {name: one.with_attr("global_symbol", name) for name, one in functions.items()}
    with tvm.target.Target(isa.target()):
        scheduled = cpu_schedules()(tvm.IRModule(functions))
    both = {f"{name}_0": function for name, function in functions.items()}
    both |= {f"{v.name_hint}_1": function for v, function in scheduled.functions_items()}
    both["copy_page"] = plain_cache.copy_page(Items.LOOP, HEADS)
    return build(both)


def matrix(fmt, rows):
    """A random matrix: its packed tensors, and its values."""
    rng, plain_ = np.random.default_rng(3), {}
    for tensor in layout.plain_tensors(fmt, rows, columns(fmt)):
        if tensor.part == "q_weight":
            raw = rng.bytes(int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize)
            values = np.frombuffer(raw, tensor.dtype).reshape(tensor.shape)
            plain_[tensor.part] = values & np.uint32(2**30 - 1) if fmt.bits == 3 else values
        else:
            values = (rng.standard_normal(tensor.shape) * 0.05).astype(np.float32)
            plain_[tensor.part] = layout.narrow(values, fmt.dtype)
    packed = layout.pack(fmt, plain_)
    values = layout.dequantize(fmt, plain_)[:, : columns(fmt)].astype(np.float64)
    return [packed[t.part] for t in layout.packed_tensors(fmt, rows, columns(fmt))], values


def rows(tokens, k, seed=1):
    return np.random.default_rng(seed).standard_normal((tokens, k)).astype(np.float32)


def empty(tokens, features, dtype=np.float32):
    return np.full((tokens, features), np.nan, dtype)


def error(x, values):
    """How far float32 may be from a product: Higham's bound for a sum of k terms."""
    return (x.shape[1] + 1) * U * (np.abs(x.astype(np.float64)) @ np.abs(values).T)


@formats
@levels
def test_products_are_those_of_the_dequantized_weights(kernels, fmt, level):
    weight, values = matrix(fmt, ROWS)
    x, y = rows(5, columns(fmt)), empty(5, ROWS)
    kernels(f"product_{fmt.name}_{level}", *weight, x, y)
    assert (np.abs(y - x.astype(np.float64) @ values.T) <= error(x, values)).all()


@formats
@levels
def test_embeddings_are_the_tables_rows(kernels, fmt, level):
    weight, values = matrix(fmt, ROWS)
    ids = np.array([0, 7, ROWS - 1, -3, ROWS + 9], np.int32)
    y = empty(5, columns(fmt))
    kernels(f"rows_{fmt.name}_{level}", *weight, ids, y)
    np.testing.assert_allclose(y, 3 * values[ids.clip(0, ROWS - 1)], rtol=4 * U)


@levels
def test_a_bias_is_added_then_the_soft_cap_then_the_residual(kernels, level):
    weight, values = matrix(SOME, ROWS)
    x, bias, residual = rows(1, columns(SOME)), rows(1, ROWS, 2)[0], rows(1, ROWS, 3)
    y = empty(1, ROWS, np.float16)
    kernels(f"all_{level}", *weight, x, bias, residual, y)
    expected = CAP * np.tanh((x.astype(np.float64) @ values.T + bias) / CAP) + residual
    assert np.abs(y - expected).max() <= 2.0**-11 * np.abs(expected).max() + 1e-5


@levels
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_a_gate_is_activated_and_multiplied(kernels, activation, level):
    weight, values = matrix(SOME, 32)
    x, y = rows(5, columns(SOME)), empty(5, 16)
    kernels(f"{activation}_{level}", *weight, x, y)
    gate, up = np.split(x.astype(np.float64) @ values.T, 2, axis=1)
    if activation == "silu":
        expected = gate / (1 + np.exp(-gate)) * up
    else:
        inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
        expected = gate * (1 + np.tanh(inner)) / 2 * up
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@levels
def test_norms_divide_by_the_root_mean_square(kernels, level):
    k = columns(SOME)
    x, y, weight = rows(1, k), rows(5, k, 2), rows(1, k, 3)[0]

    def norm(values):
        return values / np.sqrt((values**2).mean(-1, keepdims=True) + EPS) * weight

    found = empty(1, k)
    kernels(f"norm_{level}", x, weight, found)
    np.testing.assert_allclose(found, norm(x.astype(np.float64)), rtol=1e-5)
    found, base = empty(5, k), rows(5, k, 4)
    kernels(f"norm_add_{level}", base, y, weight, found)
    np.testing.assert_allclose(found, base + norm(y.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_a_page_is_copied_as_far_as_it_is_used(kernels):
    shape = (3, 2, HEADS.key_value, 16, HEADS.size)
    pages = np.random.default_rng(5).standard_normal(shape).astype(np.float16)
    expected = pages.copy()
    expected[2, :, :, :9] = pages[0, :, :, :9]
    kernels("copy_page", pages, 0, 2, 9)
    assert np.array_equal(pages, expected)


def test_rounded_activations_have_no_plain_kernel(isa):
    with pytest.raises(ValueError, match="int8"):
        plain.matmul(isa, SOME, 8, 32, tokens=1, activations="int8")
