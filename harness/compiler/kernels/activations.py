"""RMS normalisation, and the rounding of activations to int8 in groups."""

from __future__ import annotations

from collections.abc import Callable

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import GROUP

QMAX = 127.0
SMALLEST = 1e-30
"""A group whose largest value is smaller is rounded to zeros: 127 / it could overflow."""
_WIDEST = 32
"""The most values that one vector expression takes."""


def quantize(
    isa: Isa, k: int, *, tokens: int | None, group: int = GROUP, dtype: str = "float32"
) -> PrimFunc:
    """Round activations to int8 (parameters: see the package's docstring).

    `group` is the reading matrix's `WeightFormat.step`; zeros fill the last group up.
    """

    def emit() -> None:
        n = ir.token_count(tokens)
        x = ir.argument("x", (n, k), dtype)
        out = _outputs(n, k, group)

        with ir.loop(n, parallel=tokens is None) as token:

            def read(column: Expr, lanes: int) -> Expr:
                return ir.to_f32(ir.load(x, lanes, token, column), dtype, lanes)

            _quantize_row(out, token, k, group, read)

    return ir.function("quantize", emit)


def rms_norm_quantize(
    isa: Isa, k: int, eps: float, *, tokens: int | None, group: int = GROUP
) -> PrimFunc:
    """`quantize` of `rms_norm`, without the values between them in memory."""
    _check(k)

    def emit() -> None:
        n = ir.token_count(tokens)
        x = ir.argument("x", (n, k), "float32")
        weight = ir.argument("weight", (k,), "float32")
        out = _outputs(n, k, group)
        with ir.loop(n, parallel=tokens is None) as token:
            factor = _rms_factor(x, token, k, eps)

            def read(column: Expr, lanes: int) -> Expr:
                return _normalised(x, weight, factor, token, column, lanes)

            _quantize_row(out, token, k, group, read)

    return ir.function("rms_norm_quantize", emit)


def rms_norm(isa: Isa, k: int, eps: float, *, tokens: int | None) -> PrimFunc:
    """x / sqrt(mean(x^2) + eps) * weight."""
    _check(k)

    def emit() -> None:
        n = ir.token_count(tokens)
        x = ir.argument("x", (n, k), "float32")
        weight = ir.argument("weight", (k,), "float32")
        y = ir.argument("y", (n, k), "float32")
        with ir.loop(n, parallel=tokens is None) as token:
            factor = _rms_factor(x, token, k, eps)
            with ir.loop(k // GROUP) as group:
                values = _normalised(x, weight, factor, token, group * GROUP, GROUP)
                ir.store(y, values, GROUP, token, group * GROUP)

    return ir.function("rms_norm", emit)


def norm_add(isa: Isa, k: int, eps: float, *, tokens: int | None) -> PrimFunc:
    """x + `rms_norm` of y."""
    _check(k)

    def emit() -> None:
        n = ir.token_count(tokens)
        x = ir.argument("x", (n, k), "float32")
        y = ir.argument("y", (n, k), "float32")
        weight = ir.argument("weight", (k,), "float32")
        out = ir.argument("out", (n, k), "float32")
        with ir.loop(n, parallel=tokens is None) as token:
            factor = _rms_factor(y, token, k, eps)
            with ir.loop(k // GROUP) as group:
                values = _normalised(y, weight, factor, token, group * GROUP, GROUP)
                values = ir.load(x, GROUP, token, group * GROUP) + values
                ir.store(out, values, GROUP, token, group * GROUP)

    return ir.function("norm_add", emit)


def _check(k: int) -> None:
    if k < GROUP or k % GROUP:
        raise ValueError(f"{k} activations do not divide into groups of {GROUP}")


def _outputs(n: Expr, k: int, group: int) -> tuple[Buffer, Buffer, Buffer]:
    groups = -(-k // group)
    return (
        ir.argument("q", (n, groups * group // 4), "int32"),
        ir.argument("scale", (n, groups), "float32"),
        ir.argument("total", (n, groups), "float32"),
    )


def _rms_factor(x: Buffer, token: Expr, k: int, eps: float) -> Expr:
    squares = ir.stack(GROUP)
    ir.store(squares, ir.const(0.0, GROUP), GROUP, 0)
    with ir.loop(k // GROUP) as group:
        values = T.bind(ir.load(x, GROUP, token, group * GROUP))
        ir.store(squares, ir.load(squares, GROUP, 0) + values * values, GROUP, 0)
    mean = ir.fold(ir.load(squares, GROUP, 0), GROUP, ir.add) / T.float32(k)
    return ir.hold(T.float32(1.0) / T.sqrt(mean + T.float32(eps)))


def _normalised(
    x: Buffer, weight: Buffer, factor: Expr, token: Expr, column: Expr, lanes: int
) -> Expr:
    values = ir.load(x, lanes, token, column) * ir.splat(factor, lanes)
    return values * ir.load(weight, lanes, column)


def _quantize_row(
    out: tuple[Buffer, Buffer, Buffer],
    token: Expr,
    k: int,
    size: int,
    read: Callable[[Expr, int], Expr],
) -> None:
    """Round the values that `read(column, lanes)` gives, in groups of `size`."""
    whole, rest = divmod(k, size)

    def take(group: Expr, columns: int) -> None:
        values = ir.stack(size)
        for at, lanes in _pieces(size) if columns < size else []:
            ir.store(values, ir.const(0.0, lanes), lanes, at)
        for at, lanes in _pieces(columns):
            ir.store(values, read(group * size + at, lanes), lanes, at)
        _quantize_group(out, token, group, values, size)

    with ir.loop(whole) as group:
        take(group, size)
    if rest:
        take(whole, rest)


def _quantize_group(
    out: tuple[Buffer, Buffer, Buffer], token: Expr, group: Expr, values: Buffer, size: int
) -> None:
    q, scale, total = out
    pieces = _pieces(size)
    largest = ir.tree(
        [ir.fold(T.abs(ir.load(values, lanes, at)), lanes, T.max) for at, lanes in pieces], T.max
    )
    largest = ir.hold(largest)
    inverse = T.Select(largest > T.float32(SMALLEST), T.float32(QMAX) / largest, T.float32(0.0))
    inverse = ir.hold(inverse)
    step = ir.hold(largest * T.float32(1 / QMAX))
    sums = []
    for at, lanes in pieces:
        exact = ir.load(values, lanes, at) * ir.splat(inverse, lanes)
        rounded = ir.hold(T.nearbyint(exact), lanes)
        bytes_ = T.Cast(f"int8x{lanes}", T.Cast(f"int32x{lanes}", rounded))
        words = T.reinterpret(f"int32x{lanes // 4}", bytes_)
        ir.store(q, words, lanes // 4, token, (group * size + at) // 4)
        sums.append(ir.fold(rounded, lanes, ir.add))
    ir.store(scale, step, 1, token, group)
    # The sum of some dozens of small integers is exact in float32.
    ir.store(total, step * ir.tree(sums), 1, token, group)


def _pieces(count: int) -> list[tuple[int, int]]:
    """`count` values as (first, how many): powers of two, the largest first."""
    pieces, at = [], 0
    while at < count:
        lanes = min(_WIDEST, 1 << (count - at).bit_length() - 1)
        pieces.append((at, lanes))
        at += lanes
    return pieces
