"""Rows of a packed table, as the float32 embeddings of tokens."""

from __future__ import annotations

from harness.compiler.kernels import ir
from harness.compiler.kernels.dot import quads
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import GROUP, ROWS, WeightFormat, packed_tensors


def embedding(
    isa: Isa, fmt: WeightFormat, rows: int, k: int, *, tokens: int | None, scale: float = 1.0
) -> PrimFunc:
    """y = scale * the table's rows `ids`, dequantized (parameters: see the package's docstring).

    An id outside the table reads its nearest row, never memory that is not the table's.
    """

    def emit() -> None:
        n = ir.token_count(tokens)
        tensors = packed_tensors(fmt, rows, k)
        weight = [ir.argument(t.part, t.shape, t.dtype) for t in tensors]
        ids = ir.argument("ids", (n,), "int32")
        y = ir.argument("y", (n, k), "float32")

        def put(values: Expr, lanes: int, token: Expr, column: Expr) -> None:
            if scale != 1.0:
                values = values * ir.const(scale, lanes)
            ir.store(y, values, lanes, token, column)

        with ir.loop(n) as token:
            row = ir.index(T.max(T.min(ids[token], T.int32(rows - 1)), T.int32(0)))
            block, lane = ir.index(row // ROWS), ir.index(row % ROWS)
            if not fmt.quantized:
                with ir.loop(k // GROUP) as group, ir.loop(GROUP) as i:
                    column = group * GROUP + i
                    value = ir.to_f32(weight[0][block, column, lane], fmt.dtype, 1)
                    put(value, 1, token, column)
                return
            whole, rest = divmod(k, fmt.step)
            with ir.loop(whole) as step:
                for i, values in enumerate(_quads(fmt, weight, block, step, lane)):
                    put(values, 4, token, step * fmt.step + 4 * i)
            if rest:
                found = _quads(fmt, weight, block, whole, lane)
                for i in range(0, rest, 4):
                    width = min(4, rest - i)
                    values = found[i // 4]
                    for j in range(width):
                        put(T.Shuffle([values], [j]), 1, token, whole * fmt.step + i + j)

    return ir.function("embedding", emit)


def _quads(
    fmt: WeightFormat, weight: list[Buffer], block: Expr, step: Expr, lane: Expr
) -> list[Expr]:
    """A row's values in one step, four columns each."""
    group = step // (fmt.group // fmt.step)
    scale, *minimum = (
        ir.splat(ir.hold(ir.to_f32(part[block, group, lane], fmt.dtype, 1)), 4)
        for part in weight[1:]
    )
    result = []
    for quad in quads(fmt, 1, weight[0], block, step, lane):
        ints = T.Cast("int32x4", quad) - ir.splat(T.int32(fmt.zero), 4)
        values = T.Cast("float32x4", ints) * scale
        result.append(ir.hold(values + minimum[0] if minimum else values, 4))
    return result
