"""Rows of a packed table, as the float32 embeddings of tokens."""

from __future__ import annotations

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import (
    GROUP,
    ROWS,
    SYMMETRIC_ZERO,
    WeightFormat,
    packed_tensors,
)


def embedding(isa: Isa, fmt: WeightFormat, rows: int, k: int, *, tokens: int | None) -> PrimFunc:
    """y = the table's rows `ids`, dequantized (parameters: see the package's docstring).

    An id outside the table reads its nearest row, never memory that is not the table's.
    """

    def emit() -> None:
        n = ir.token_count(tokens)
        tensors = packed_tensors(fmt, rows, k)
        weight = [ir.argument(t.part, t.shape, t.dtype) for t in tensors]
        ids = ir.argument("ids", (n,), "int32")
        y = ir.argument("y", (n, k), "float32")
        with ir.loop(n) as token:
            row = ir.index(T.max(T.min(ids[token], T.int32(rows - 1)), T.int32(0)))
            block, lane = ir.index(row // ROWS), ir.index(row % ROWS)
            with ir.loop(k // GROUP) as group:
                if fmt == WeightFormat.F32:
                    with ir.loop(GROUP) as i:
                        column = group * GROUP + i
                        ir.store(y, weight[0][block, column, lane], 1, token, column)
                else:
                    _group(fmt, weight, y, token, block, group, lane)

    return ir.function(f"embedding_{fmt}", emit)


def _group(
    fmt: WeightFormat,
    weight: list[Buffer],
    y: Buffer,
    token: Expr,
    block: Expr,
    group: Expr,
    lane: Expr,
) -> None:
    assert fmt.scale_dtype is not None
    scale = T.bind(ir.to_f32(weight[1][block, group, lane], fmt.scale_dtype, 1))
    if fmt.has_minimum:
        offset = T.bind(ir.to_f32(weight[2][block, group, lane], fmt.scale_dtype, 1))
    else:
        offset = ir.hold(scale * T.float32(0 if fmt == WeightFormat.Q8_0 else -SYMMETRIC_ZERO))
    with ir.loop(fmt.bits) as chunk:
        word = T.bind(weight[0][block, group, chunk * ROWS + lane])
        first = group * GROUP + chunk * (GROUP // fmt.bits)
        if fmt == WeightFormat.Q8_0:
            values = T.Cast("int32x4", T.reinterpret("int8x4", word))
            _put(y, values, scale, offset, token, first)
        else:
            for half in range(2):
                shifted = T.shift_right(word, T.int32(4 * half))
                bytes_ = T.reinterpret("uint8x4", T.bitwise_and(shifted, T.int32(0x0F0F0F0F)))
                values = T.Cast("int32x4", bytes_)
                _put(y, values, scale, offset, token, first + 4 * half)


def _put(y: Buffer, ints: Expr, scale: Expr, offset: Expr, token: Expr, column: Expr) -> None:
    values = T.Cast("float32x4", ints) * ir.splat(scale, 4) + ir.splat(offset, 4)
    ir.store(y, values, 4, token, column)
