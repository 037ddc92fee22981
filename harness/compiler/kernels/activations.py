"""RMS normalisation, and the rounding of activations to int8 in groups of 32."""

from __future__ import annotations

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import GROUP

QMAX = 127.0
SMALLEST = 1e-30
"""A group whose largest value is smaller is rounded to zeros: 127 / it could overflow."""


def quantize(isa: Isa, k: int, *, tokens: int | None, dtype: str = "float32") -> PrimFunc:
    """Round activations to int8 (parameters: see the package's docstring)."""
    _check(k)

    def emit() -> None:
        n = ir.token_count(tokens)
        x = ir.argument("x", (n, k), dtype)
        out = _outputs(n, k)
        with ir.loop(n, parallel=tokens is None) as token, ir.loop(k // GROUP) as group:
            values = ir.to_f32(ir.load(x, GROUP, token, group * GROUP), dtype, GROUP)
            _quantize_group(out, token, group, ir.hold(values, GROUP))

    return ir.function("quantize", emit)


def rms_norm_quantize(isa: Isa, k: int, eps: float, *, tokens: int | None) -> PrimFunc:
    """`quantize` of `rms_norm`, without the values between them in memory."""
    _check(k)

    def emit() -> None:
        n = ir.token_count(tokens)
        x = ir.argument("x", (n, k), "float32")
        weight = ir.argument("weight", (k,), "float32")
        out = _outputs(n, k)
        with ir.loop(n, parallel=tokens is None) as token:
            factor = _rms_factor(x, token, k, eps)
            with ir.loop(k // GROUP) as group:
                values = _normalised(x, weight, factor, token, group)
                _quantize_group(out, token, group, ir.hold(values, GROUP))

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
                values = _normalised(x, weight, factor, token, group)
                ir.store(y, values, GROUP, token, group * GROUP)

    return ir.function("rms_norm", emit)


def _check(k: int) -> None:
    if k < GROUP or k % GROUP:
        raise ValueError(f"{k} activations do not divide into groups of {GROUP}")


def _outputs(n: Expr, k: int) -> tuple[Buffer, Buffer, Buffer]:
    return (
        ir.argument("q", (n, k // 4), "int32"),
        ir.argument("scale", (n, k // GROUP), "float32"),
        ir.argument("total", (n, k // GROUP), "float32"),
    )


def _rms_factor(x: Buffer, token: Expr, k: int, eps: float) -> Expr:
    squares = ir.stack(GROUP)
    ir.store(squares, ir.const(0.0, GROUP), GROUP, 0)
    with ir.loop(k // GROUP) as group:
        values = T.bind(ir.load(x, GROUP, token, group * GROUP))
        ir.store(squares, ir.load(squares, GROUP, 0) + values * values, GROUP, 0)
    mean = ir.fold(ir.load(squares, GROUP, 0), GROUP, ir.add) / T.float32(k)
    return ir.hold(T.float32(1.0) / T.sqrt(mean + T.float32(eps)))


def _normalised(x: Buffer, weight: Buffer, factor: Expr, token: Expr, group: Expr) -> Expr:
    values = ir.load(x, GROUP, token, group * GROUP) * ir.splat(factor, GROUP)
    return values * ir.load(weight, GROUP, group * GROUP)


def _quantize_group(
    out: tuple[Buffer, Buffer, Buffer], token: Expr, group: Expr, values: Expr
) -> None:
    q, scale, total = out
    largest = ir.fold(T.abs(values), GROUP, T.max)
    inverse = T.Select(largest > T.float32(SMALLEST), T.float32(QMAX) / largest, T.float32(0.0))
    rounded = ir.hold(T.nearbyint(values * ir.splat(ir.hold(inverse), GROUP)), GROUP)
    step = ir.hold(largest * T.float32(1 / QMAX))
    words = T.Cast(f"int8x{GROUP}", T.Cast(f"int32x{GROUP}", rounded))
    words = T.reinterpret(f"int32x{GROUP // 4}", words)
    ir.store(q, words, GROUP // 4, token, group * (GROUP // 4))
    ir.store(scale, step, 1, token, group)
    # The sum of 32 small integers is exact in float32.
    ir.store(total, step * ir.fold(rounded, GROUP, ir.add), 1, token, group)
