"""Products of packed matrices, against float64 on the same quantized values."""

import numpy as np
import pytest

from harness.compiler.kernels import layout, matmul
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
U16 = 2.0**-11
"""The same of float16."""
K = 96
ROWS = (24, 21)
TOKENS = (1, 2, 4, 11)


def name(kind, fmt, rows, tokens):
    return f"{kind}_{fmt.name.lower()}_{rows}_{'one' if tokens == 1 else 'many'}"


@pytest.fixture(scope="module")
def kernels(isa, build):
    functions = {}
    for fmt in FORMATS:
        for tokens in (1, None):
            for rows in ROWS:
                functions[name("plain", fmt, rows, tokens)] = matmul.matmul(
                    isa, fmt, rows, K, tokens=tokens
                )
            functions[name("added", fmt, 21, tokens)] = matmul.matmul(
                isa, fmt, 21, K, tokens=tokens, residual=True
            )
            functions[name("half", fmt, 24, tokens)] = matmul.matmul(
                isa, fmt, 24, K, tokens=tokens, dtype="float16"
            )
            functions[name("gated", fmt, 16, tokens)] = matmul.gated_matmul(
                isa, fmt, 16, K, tokens=tokens
            )
    return build(functions)


class Case:
    """A matrix, activations, their product in float64, and how far float32 may be from it."""

    def __init__(self, fmt, rows, tokens, *, seed=0, extreme=False):
        rng = np.random.default_rng(seed)
        self.plain = {}
        for tensor in layout.plain_tensors(fmt, rows, K):
            shape = tensor.shape
            if tensor.dtype == "uint32":
                values = rng.integers(0, 2**32, shape, dtype=np.uint32)
                values = np.full_like(values, 2**32 - 1) if extreme else values
            elif tensor.dtype == "int8":
                values = rng.integers(-128, 128, shape, dtype=np.int8)
                values = np.full_like(values, -128) if extreme else values
            else:
                values = (rng.standard_normal(shape) * 0.05).astype(tensor.dtype)
            self.plain[tensor.part] = values
        packed = layout.pack(fmt, self.plain)
        self.weight = [packed[t.part] for t in layout.packed_tensors(fmt, rows, K)]
        matrix = layout.dequantize(fmt, self.plain).astype(np.float64)
        if fmt == WeightFormat.F32:
            x = rng.standard_normal((tokens, K)).astype(np.float32)
            self.x = [x]
            wide = x.astype(np.float64)
            # K products, each added once: Higham's bound for a sum of K terms.
            terms, count = np.abs(wide) @ np.abs(matrix).T, K + 1
        else:
            q = rng.integers(-127, 128, (tokens, K), dtype=np.int8)
            if extreme:
                q = np.where(rng.random((tokens, 1)) < 0.5, -127, 127).astype(np.int8)
                q = np.repeat(q, K, 1)
            scale = rng.random((tokens, K // 32)).astype(np.float32)
            scale[0, 0] = 0
            groups = q.reshape(tokens, -1, 32).astype(np.int64)
            total = (groups.sum(-1) * scale.astype(np.float64)).astype(np.float32)
            self.x = [np.ascontiguousarray(q).view(np.int32), scale, total]
            wide = (groups * scale.astype(np.float64)[..., None]).reshape(tokens, K)
            # The integer sums are exact. Each group adds a product with two or three factors and,
            # with an offset, its share of `total`, which was rounded before.
            ints, offset = self._parts(fmt)
            size = np.abs(np.einsum("tgj,rgj->trg", groups.astype(float), ints))
            size = size * scale.astype(np.float64)[:, None] * self._scale()[None]
            size = size + np.abs(total.astype(np.float64))[:, None] * np.abs(offset)[None]
            terms, count = size.sum(-1), K // 32 + 5
        self.product = wide @ matrix.T
        self.error = count * U * terms

    def _scale(self):
        return np.abs(self.plain["q_scale"].astype(np.float64))

    def _parts(self, fmt):
        """The integers [rows, groups, 32] that meet the activations, and a group's offset."""
        if fmt == WeightFormat.Q8_0:
            q = self.plain["q_weight"].astype(np.float64)
            return q.reshape(len(q), -1, 32), np.zeros((len(q), K // 32))
        q = layout.words_to_nibbles(self.plain["q_weight"]).astype(np.float64)
        offset = self.plain["q_min"].astype(np.float64) if fmt.has_minimum else 7 * self._scale()
        return q.reshape(len(q), -1, 32), offset


formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)


@formats
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_products_are_within_the_error_of_their_roundings(kernels, fmt, rows, tokens):
    case = Case(fmt, rows, tokens, seed=tokens)
    y = np.full((tokens, rows), np.nan, np.float32)
    kernels(name("plain", fmt, rows, tokens), *case.weight, *case.x, y)
    assert (np.abs(y - case.product) <= case.error).all()


@formats
@pytest.mark.parametrize("tokens", [1, 5])
def test_nothing_saturates_at_the_ends_of_the_integer_range(kernels, fmt, tokens):
    case = Case(fmt, 24, tokens, seed=9, extreme=True)
    y = np.full((tokens, 24), np.nan, np.float32)
    kernels(name("plain", fmt, 24, tokens), *case.weight, *case.x, y)
    assert (np.abs(y - case.product) <= case.error).all()


@formats
@pytest.mark.parametrize("tokens", [1, 5])
def test_a_residual_is_added(kernels, fmt, tokens):
    case = Case(fmt, 21, tokens)
    residual = np.random.default_rng(4).standard_normal((tokens, 21)).astype(np.float32)
    y = np.full((tokens, 21), np.nan, np.float32)
    kernels(name("added", fmt, 21, tokens), *case.weight, *case.x, residual, y)
    expected = residual + case.product
    assert (np.abs(y - expected) <= case.error + U * np.abs(expected)).all()


@formats
@pytest.mark.parametrize("tokens", [1, 5])
def test_float16_results_are_rounded_once(kernels, fmt, tokens):
    case = Case(fmt, 24, tokens)
    y = np.full((tokens, 24), np.nan, np.float16)
    kernels(name("half", fmt, 24, tokens), *case.weight, *case.x, y)
    error = case.error + 1.001 * U16 * np.abs(case.product) + 2.0**-24
    assert (np.abs(y - case.product) <= error).all()


@formats
@pytest.mark.parametrize("tokens", [1, 5])
def test_gate_and_up_are_combined(kernels, fmt, tokens):
    case = Case(fmt, 32, tokens, seed=5)
    y = np.full((tokens, 16), np.nan, np.float32)
    kernels(name("gated", fmt, 16, tokens), *case.weight, *case.x, y)
    gate, up = case.product[:, :16], case.product[:, 16:]
    with np.errstate(over="ignore"):
        silu = gate / (1 + np.exp(-gate))
    # silu's slope is below 1.1; e^-x carries the error of x itself, |x| U, and of the polynomial.
    silu_error = 1.1 * case.error[:, :16] + (np.abs(gate) + 8) * U * np.abs(silu) + 1e-36
    error = silu_error * np.abs(up) + np.abs(silu) * case.error[:, 16:]
    assert (np.abs(y - silu * up) <= error + 2 * U * np.abs(silu * up)).all()


def test_gate_rows_that_are_no_multiple_of_8_are_refused(isa):
    with pytest.raises(ValueError, match="blocks of 8"):
        matmul.gated_matmul(isa, WeightFormat.F32, 12, K, tokens=1)
