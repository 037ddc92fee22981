"""Products of packed matrices, against float64 on the same quantized values."""

import math

import numpy as np
import pytest

from harness.compiler.kernels import layout, matmul
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.options import TILES

U = 2.0**-24
"""The unit roundoff of float32: a rounded result is off by at most U times its magnitude."""
U16 = 2.0**-11
"""The same of float16."""
TINY = 1e-42
"""What denormal numbers may lose."""
FORMATS = [
    WeightFormat.Q3_SYM_F16,
    WeightFormat.Q4_1,
    WeightFormat.Q4_SYM_F16,
    WeightFormat("q4_sym_bf16", 64),
    WeightFormat("q4_sym_f32", 128),
    WeightFormat.Q8_0,
    WeightFormat("q8_0", 64),
    WeightFormat.F16,
    WeightFormat.BF16,
    WeightFormat.F32,
]
QUANTIZED = [fmt for fmt in FORMATS if fmt.quantized]
SOME = [WeightFormat.Q4_1, WeightFormat.F32]
"""For what comes after the sums, which is the same for all."""
TOKENS = (1, 4, 11)
CAP = 1.5


def columns(fmt):
    """Several groups; of 3-bit values the last one is not full."""
    return 96 if fmt.group <= 40 else 2 * fmt.group


def name(kind, fmt, tokens):
    return f"{kind}_{fmt.name}_{fmt.group}_{'one' if tokens == 1 else 'many'}"


@pytest.fixture(scope="module")
def kernels(isa, build):
    functions = {}

    def add(kind, fmt, rows, tokens, factory=matmul.matmul, **options):
        made = factory(isa, fmt, rows, columns(fmt), tokens=tokens, **options)
        functions[name(kind, fmt, tokens)] = made

    for tokens in (1, None):
        for fmt in FORMATS:
            add("odd", fmt, 21, tokens)
        for fmt in SOME:
            add("gated", fmt, 16, tokens, matmul.gated_matmul)
            add("gelu", fmt, 16, tokens, matmul.gated_matmul, activation="gelu_tanh")
            add("all", fmt, 21, tokens, bias=True, softcap=CAP, residual=True)
            add("half", fmt, 24, tokens, bias=True, dtype="float16")
    # The one-token variant is what these do with tokens that fill no tile: it is made only once.
    for fmt in QUANTIZED:
        add("float", fmt, 21, None, activations="float32")
    add("float", FORMATS[0], 21, 1, activations="float32")
    add("float_gated", FORMATS[0], 16, 1, matmul.gated_matmul, activations="float32")
    add("cap", WeightFormat.F32, 24, None, softcap=CAP)
    for tile in TILES:
        for fmt in SOME:
            add(f"tile{tile}", fmt, 21, None, tile=tile)
        add(f"gated{tile}", SOME[0], 16, None, matmul.gated_matmul, tile=tile)
    return build(functions)


class Case:
    """A matrix, activations, their product in float64, and how far float32 may be from it."""

    def __init__(self, fmt, rows, tokens, *, seed=0, extreme=False, size=0.05, floats=False):
        rng = np.random.default_rng(seed)
        k = columns(fmt)
        self.plain = {}
        for tensor in layout.plain_tensors(fmt, rows, k):
            shape = tensor.shape
            if tensor.part == "q_weight" and fmt.bits == 8:
                values = rng.integers(-128, 128, shape, dtype=np.int8)
                values = np.full_like(values, -128) if extreme else values
            elif tensor.part == "q_weight":
                end = 2**30 if fmt.bits == 3 else 2**32
                values = rng.integers(0, end, shape, dtype=np.uint32)
                values = np.full_like(values, end - 1) if extreme else values
            else:
                values = layout.narrow(
                    (rng.standard_normal(shape) * size).astype(np.float32), fmt.dtype
                )
            self.plain[tensor.part] = values
        packed = layout.pack(fmt, self.plain)
        self.weight = [packed[t.part] for t in layout.packed_tensors(fmt, rows, k)]
        matrix = layout.dequantize(fmt, self.plain).astype(np.float64)
        if floats or not fmt.quantized:
            matrix = matrix[:, :k]
            x = rng.standard_normal((tokens, k)).astype(np.float32)
            self.x = [x]
            wide = x.astype(np.float64)
            # k products, each added once: Higham's bound for a sum of k terms.
            terms, count = np.abs(wide) @ np.abs(matrix).T, k + 1
        else:
            steps = fmt.steps(k)
            q = np.zeros((tokens, steps * fmt.step), np.int8)
            q[:, :k] = rng.integers(-127, 128, (tokens, k))
            if extreme:
                q[:, :k] = np.where(rng.random((tokens, 1)) < 0.5, -127, 127)
            scale = rng.random((tokens, steps)).astype(np.float32)
            scale[0, 0] = 0
            groups = q.reshape(tokens, steps, -1).astype(np.int64)
            total = (groups.sum(-1) * scale.astype(np.float64)).astype(np.float32)
            self.x = [q.view(np.int32), scale, total]
            wide = (groups * scale.astype(np.float64)[..., None]).reshape(tokens, -1)
            # The integer sums are exact. Each step adds a product with two or three factors and,
            # with an offset, its share of `total`, which was rounded before.
            ints = layout.integers(fmt, self.plain["q_weight"]).reshape(rows, steps, -1)
            size = np.abs(np.einsum("tgj,rgj->trg", groups.astype(float), ints.astype(float)))
            size = size * scale.astype(np.float64)[:, None] * self._each_step("q_scale", fmt)
            offset = (
                self._each_step("q_min", fmt)
                if fmt.has_minimum
                else fmt.zero * self._each_step("q_scale", fmt)
            )
            size = size + np.abs(total.astype(np.float64))[:, None] * offset
            terms, count = size.sum(-1), steps + 5
        self.product = wide @ matrix.T
        self.error = count * (U * terms + TINY)

    def _each_step(self, part, fmt):
        values = np.abs(layout.widen(self.plain[part], fmt.dtype).astype(np.float64))
        return values.repeat(fmt.group // fmt.step, axis=1)[None]


def product(kernels, kind, fmt, rows, case, *more, dtype=np.float32):
    tokens = len(case.x[0])
    y = np.full((tokens, rows), np.nan, dtype)
    kernel = name(kind, fmt, tokens)
    if kernel not in kernels.names:
        kernel = name(kind, fmt, None)
    kernels(kernel, *case.weight, *case.x, *more, y)
    return y


formats = pytest.mark.parametrize("fmt", FORMATS, ids=str)
quantized = pytest.mark.parametrize("fmt", QUANTIZED, ids=str)
one_or_more = pytest.mark.parametrize("tokens", [1, 5])


@formats
@pytest.mark.parametrize("tokens", TOKENS)
def test_products_are_within_the_error_of_their_roundings(kernels, fmt, tokens):
    case = Case(fmt, 21, tokens, seed=tokens)
    assert (np.abs(product(kernels, "odd", fmt, 21, case) - case.product) <= case.error).all()


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("tokens", [2, 11, 24])
def test_a_tile_of_any_size_gives_the_same_products(kernels, tile, tokens):
    exact, floats = SOME
    case = Case(exact, 21, tokens, seed=tokens)
    own = product(kernels, "odd", exact, 21, case)
    assert (product(kernels, f"tile{tile}", exact, 21, case) == own).all()
    case = Case(floats, 21, tokens, seed=tokens)
    found = product(kernels, f"tile{tile}", floats, 21, case)
    assert (np.abs(found - case.product) <= case.error).all()
    check_gated(kernels, f"gated{tile}", silu, exact, Case(exact, 32, tokens, seed=5))


@quantized
@pytest.mark.parametrize("tokens", TOKENS)
def test_float_activations_meet_the_dequantized_weights(kernels, fmt, tokens):
    case = Case(fmt, 21, tokens, seed=tokens, floats=True)
    assert (np.abs(product(kernels, "float", fmt, 21, case) - case.product) <= case.error).all()


@quantized
@one_or_more
def test_nothing_saturates_at_the_ends_of_the_integer_range(kernels, fmt, tokens):
    case = Case(fmt, 21, tokens, seed=9, extreme=True)
    assert (np.abs(product(kernels, "odd", fmt, 21, case) - case.product) <= case.error).all()
    case = Case(fmt, 21, tokens, seed=9, extreme=True, floats=True)
    assert (np.abs(product(kernels, "float", fmt, 21, case) - case.product) <= case.error).all()


@formats
def test_denormal_scales_and_weights_count(kernels, fmt):
    size = 3e-7 if fmt.dtype == "float16" else 3e-39
    case = Case(fmt, 21, 5, size=size)
    assert np.abs(case.product).max() > 100 * case.error.max()
    assert (np.abs(product(kernels, "odd", fmt, 21, case) - case.product) <= case.error).all()
    if fmt.quantized:
        case = Case(fmt, 21, 5, size=size, floats=True)
        found = product(kernels, "float", fmt, 21, case)
        assert (np.abs(found - case.product) <= case.error).all()


@formats
def test_zeros_make_zeros(kernels, fmt):
    case = Case(fmt, 21, 5)
    for x in case.x:
        x[...] = 0
    assert not product(kernels, "odd", fmt, 21, case).any()
    case = Case(fmt, 21, 5, size=0)
    assert not product(kernels, "odd", fmt, 21, case).any()


@pytest.mark.parametrize("fmt", SOME, ids=str)
@one_or_more
def test_a_bias_is_added_then_the_soft_cap_then_the_residual(kernels, fmt, tokens):
    case = Case(fmt, 21, tokens)
    rng = np.random.default_rng(4)
    bias = rng.standard_normal(21).astype(np.float32)
    residual = rng.standard_normal((tokens, 21)).astype(np.float32)
    y = product(kernels, "all", fmt, 21, case, bias, residual)
    capped = CAP * np.tanh((case.product + bias) / CAP)
    expected = capped + residual
    error = case.error + U * (np.abs(case.product + bias) + np.abs(expected) + 16 * np.abs(capped))
    assert (np.abs(y - expected) <= error).all()


@pytest.mark.parametrize("fmt", SOME, ids=str)
@one_or_more
def test_float16_results_are_rounded_once(kernels, fmt, tokens):
    case = Case(fmt, 24, tokens)
    bias = np.random.default_rng(4).standard_normal(24).astype(np.float32)
    y = product(kernels, "half", fmt, 24, case, bias, dtype=np.float16)
    expected = case.product + bias
    assert (np.abs(y - expected) <= case.error + 1.001 * U16 * np.abs(expected) + 2.0**-24).all()


def silu(x):
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def gelu(x):
    # (1 + tanh u) / 2 in the form that float64 does not cancel in either.
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gate_error(x):
    """What the gate's own arithmetic adds: e^-u carries the error of u, and of the polynomial."""
    return (5 * np.abs(x + 0.044715 * x**3) + 8) * U


@pytest.mark.parametrize(
    ("kind", "act", "fmt"),
    [
        *(("gated", silu, fmt) for fmt in SOME),
        *(("gelu", gelu, fmt) for fmt in SOME),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@one_or_more
def test_gate_and_up_are_combined(kernels, kind, act, fmt, tokens):
    check_gated(kernels, kind, act, fmt, Case(fmt, 32, tokens, seed=5))


def test_gate_and_up_take_float_activations_too(kernels):
    case = Case(FORMATS[0], 32, 1, seed=5, floats=True)
    check_gated(kernels, "float_gated", silu, FORMATS[0], case)


def check_gated(kernels, kind, act, fmt, case):
    y = product(kernels, kind, fmt, 16, case)
    gate, up = case.product[:, :16], case.product[:, 16:]
    value = act(gate)
    # The slopes of both are below 1.2.
    act_error = 1.2 * case.error[:, :16] + gate_error(gate) * np.abs(value) + 1e-36
    error = act_error * np.abs(up) + np.abs(value) * case.error[:, 16:]
    assert (np.abs(y - value * up) <= error + 2 * U * np.abs(value * up)).all()


def sweep():
    """Numbers of every size and sign."""
    sizes = np.geomspace(1e-35, 1e35, 1501).astype(np.float32)
    return np.concatenate([-sizes, [-0.0, 0.0], sizes, np.linspace(-20, 20, 1001, dtype="f4")])


def selecting(rows, columns_of_ones):
    """A float32 matrix whose row r is all zeros but for a one in a column."""
    plain = np.zeros((rows, columns(WeightFormat.F32)), np.float32)
    plain[np.arange(rows), columns_of_ones] = 1
    return layout.pack(WeightFormat.F32, {"weight": plain})["weight"]


@pytest.mark.parametrize(("kind", "act"), [("gated", silu), ("gelu", gelu)])
def test_gates_are_exact_to_some_roundings_for_numbers_of_every_size(kernels, kind, act):
    x = np.zeros((len(sweep()), columns(WeightFormat.F32)), np.float32)
    x[:, 0], x[:, 1] = sweep(), 1
    y = np.full((len(x), 16), np.nan, np.float32)
    weight = selecting(32, [0] * 16 + [1] * 16)
    kernels(name(kind, WeightFormat.F32, len(x)), weight, x, y)
    wide = x[:, 0].astype(np.float64)
    expected = act(wide)
    error = np.minimum(gate_error(wide), 1e-3) * np.abs(expected) + np.abs(wide) * 2.0**-125
    assert (np.abs(y.T - expected) <= error + TINY).all()
    near = np.abs(wide) < 6
    assert (np.abs(y.T - expected)[:, near] <= 4e-6 * np.abs(expected[near]) + TINY).all()


def test_the_soft_cap_is_exact_to_some_roundings_for_numbers_of_every_size(kernels):
    x = np.zeros((len(sweep()), columns(WeightFormat.F32)), np.float32)
    x[:, 0] = sweep()
    y = np.full((len(x), 24), np.nan, np.float32)
    kernels(name("cap", WeightFormat.F32, len(x)), selecting(24, 0), x, y)
    expected = CAP * np.tanh(x[:, 0].astype(np.float64) / CAP)
    assert (np.abs(y.T - expected) <= 16 * U * np.abs(expected) + TINY).all()
    assert np.abs(y).max() <= CAP


@formats
def test_the_number_of_threads_changes_no_bit(kernels, fmt):
    case = Case(fmt, 21, 11)
    found = []
    for threads in (1, 2, 4):
        kernels.use_threads(threads)
        found.append(product(kernels, "odd", fmt, 21, case).tobytes())
    assert len(set(found)) == 1


def test_gate_rows_that_are_no_multiple_of_8_are_refused(isa):
    with pytest.raises(ValueError, match="blocks of 8"):
        matmul.gated_matmul(isa, WeightFormat.F32, 12, 96, tokens=1)


def test_columns_that_the_groups_do_not_divide_are_refused(isa):
    with pytest.raises(ValueError, match="multiple of 64"):
        matmul.matmul(isa, WeightFormat("q8_0", 64), 8, 96, tokens=1)
