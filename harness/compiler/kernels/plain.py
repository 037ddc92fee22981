"""The kernels' functions as plain definitions, which TVM's own schedules make code of.

Every factory takes what its namesake takes and gives a function of the same parameters, for
activations in float32: see the package's docstring. They serve the lower optimisation levels and
the GPU, and say in a few lines what the kernels written by hand compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import te, tirx

from harness.compiler.kernels.ir import Expr, PrimFunc
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import ROWS, WeightFormat, packed_tensors
from harness.compiler.kernels.matmul import Gate


def embedding(
    isa: Isa, fmt: WeightFormat, rows: int, k: int, *, tokens: int | None, scale: float = 1.0
) -> PrimFunc:
    """y = scale * the table's rows `ids`, dequantized; an id outside reads the nearest row."""
    n = _count(tokens)
    weight = _weight(fmt, rows, k)
    ids = te.placeholder((n,), "int32", name="ids")

    def value(token: Expr, column: Expr) -> Expr:
        row = tirx.max(tirx.min(ids[token], rows - 1), 0)
        return _value(fmt, weight, row, column) * tirx.const(scale, "float32")

    y = te.compute((n, k), value, name="y")
    return te.create_prim_func([*weight, ids, y])


def matmul(
    isa: Isa,
    fmt: WeightFormat,
    rows: int,
    k: int,
    *,
    tokens: int | None,
    activations: str = "float32",
    bias: bool = False,
    softcap: float | None = None,
    residual: bool = False,
    dtype: str = "float32",
) -> PrimFunc:
    """y = x w^T [+ bias], then cap * tanh(y / cap) if there is a soft cap, then [+ residual]."""
    _check(activations, fmt)
    n = _count(tokens)
    weight = _weight(fmt, rows, k)
    x = te.placeholder((n, k), "float32", name="x")
    offset = [te.placeholder((rows,), "float32", name="bias")] if bias else []
    added = [te.placeholder((n, rows), "float32", name="residual")] if residual else []
    product = _product(fmt, weight, x, rows, k, "product")

    def value(token: Expr, row: Expr) -> Expr:
        result = product[token, row]
        for one in offset:
            result = result + one[row]
        if softcap is not None:
            cap = tirx.const(softcap, "float32")
            result = tirx.tanh(result / cap) * cap
        for one in added:
            result = result + one[token, row]
        return result.astype(dtype)

    y = te.compute((n, rows), value, name="y")
    return te.create_prim_func([*weight, x, *offset, *added, y])


def gated_matmul(
    isa: Isa,
    fmt: WeightFormat,
    rows: int,
    k: int,
    *,
    tokens: int | None,
    activations: str = "float32",
    activation: Gate = "silu",
) -> PrimFunc:
    """y = act(x gate^T) * (x up^T) for one matrix of gate's rows, then up's, `rows` each."""
    _check(activations, fmt)
    n = _count(tokens)
    weight = _weight(fmt, 2 * rows, k)
    x = te.placeholder((n, k), "float32", name="x")
    gate = _product(fmt, weight, x, rows, k, "gate")
    up = _product(fmt, weight, x, rows, k, "up", first=rows)
    act = {"silu": _silu, "gelu_tanh": _gelu_tanh}[activation]
    y = te.compute((n, rows), lambda i, j: act(gate[i, j]) * up[i, j], name="y")
    return te.create_prim_func([*weight, x, y])


def rms_norm(isa: Isa, k: int, eps: float, *, tokens: int | None) -> PrimFunc:
    """x / sqrt(mean(x^2) + eps) * weight."""
    n = _count(tokens)
    x = te.placeholder((n, k), "float32", name="x")
    weight = te.placeholder((k,), "float32", name="weight")
    norm = _normalised(x, weight, k, eps)
    y = te.compute((n, k), norm, name="y")
    return te.create_prim_func([x, weight, y])


def norm_add(isa: Isa, k: int, eps: float, *, tokens: int | None) -> PrimFunc:
    """x + `rms_norm` of y."""
    n = _count(tokens)
    x = te.placeholder((n, k), "float32", name="x")
    y = te.placeholder((n, k), "float32", name="y")
    weight = te.placeholder((k,), "float32", name="weight")
    norm = _normalised(y, weight, k, eps)
    out = te.compute((n, k), lambda i, j: x[i, j] + norm(i, j), name="out")
    return te.create_prim_func([x, y, weight, out])


def _count(tokens: int | None) -> Expr:
    return tirx.Var("n", "int64") if tokens is None else tokens


def _check(activations: str, fmt: WeightFormat) -> None:
    if activations != "float32" and fmt.quantized:
        raise ValueError(f"plain kernels take no activations in {activations}")


def _weight(fmt: WeightFormat, rows: int, k: int) -> list[te.Tensor]:
    return [te.placeholder(t.shape, t.dtype, name=t.part) for t in packed_tensors(fmt, rows, k)]


def _product(
    fmt: WeightFormat,
    weight: Sequence[te.Tensor],
    x: te.Tensor,
    rows: int,
    k: int,
    name: str,
    first: int = 0,
) -> te.Tensor:
    """x w^T [n, rows] for `rows` rows of the matrix from `first`; sums are float32."""
    column = te.reduce_axis((0, k), name="column")
    return te.compute(
        (x.shape[0], rows),
        lambda i, j: te.sum(x[i, column] * _value(fmt, weight, first + j, column), axis=column),
        name=name,
    )


def _value(fmt: WeightFormat, weight: Sequence[te.Tensor], row: Expr, column: Expr) -> Expr:
    """The float32 value at a row and column of a packed matrix."""
    block, lane = row // ROWS, row % ROWS
    if not fmt.quantized:
        return _to_f32(weight[0][block, column, lane], fmt.dtype)
    step, inside = column // fmt.step, column % fmt.step
    shift = inside % 4 * 8
    """The byte of a word that a column lies in, in bits."""

    def word(chunk: Expr) -> Expr:
        return weight[0][block, step, chunk * ROWS + lane]

    if fmt.bits == 8:
        # The sign comes with the shift back.
        q = word(inside // 4) << (24 - shift) >> 24
    elif fmt.bits == 4:
        q = word(inside // 8) >> (shift + inside % 8 // 4 * 4) & 15
    else:
        q = _three_bits(word, inside // 4, shift)
    group = column // fmt.group
    scale, *minimum = (_to_f32(part[block, group, lane], fmt.dtype) for part in weight[1:])
    value = (q - fmt.zero).astype("float32") * scale
    return value + minimum[0] if minimum else value


def _three_bits(word: Callable[[Expr], Expr], quad: Expr, shift: Expr) -> Expr:
    """A value of quad 0..9 of a step: eight lie in pairs, the last two in what these left over."""
    pair = word(quad // 2) >> (shift + quad % 2 * 3) & 7
    chunk = (quad - 8) * 2
    rest = (word(chunk) >> (shift + 6) & 3) | (word(chunk + 1) >> (shift + 6) & 1) << 2
    # Only what is chosen is read: the other would lie outside.
    return tirx.if_then_else(quad < 8, pair, rest)


def _to_f32(value: Expr, dtype: str) -> Expr:
    if dtype == "bfloat16":
        return tirx.reinterpret("float32", value.astype("uint32") << tirx.const(16, "uint32"))
    return value.astype("float32")


def _normalised(
    x: te.Tensor, weight: te.Tensor, k: int, eps: float
) -> Callable[[Expr, Expr], Expr]:
    column = te.reduce_axis((0, k), name="column")
    squares = te.compute(
        (x.shape[0],), lambda i: te.sum(x[i, column] * x[i, column], axis=column), name="squares"
    )

    def value(token: Expr, at: Expr) -> Expr:
        mean = squares[token] / tirx.const(k, "float32")
        return x[token, at] / tirx.sqrt(mean + tirx.const(eps, "float32")) * weight[at]

    return value


def _silu(x: Expr) -> Expr:
    return x / (tirx.const(1, "float32") + tirx.exp(-x))


def _gelu_tanh(x: Expr) -> Expr:
    """x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), as 1 / (1 + e^-2u)."""
    cubic = x * (x * x * tirx.const(0.044715, "float32") + tirx.const(1, "float32"))
    return x / (
        tirx.const(1, "float32")
        + tirx.exp(cubic * tirx.const(-2 * math.sqrt(2 / math.pi), "float32"))
    )
