"""Products of packed weight matrices with one token's or many tokens' activations.

A thread takes a run of row blocks. For each block, a tile of tokens is taken at once: the block's
weights are unpacked to registers once a group and serve every token of the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels.dot import dot, quads, spread
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import (
    GROUP,
    ROWS,
    SYMMETRIC_ZERO,
    WeightFormat,
    packed_tensors,
)

_TILE = 4
_TILE_F32 = 8
_F32_CHAINS = 8


class _Activations(NamedTuple):
    """The activation parameters: `x` of float32 weights is `q` here, and has no groups."""

    q: Buffer
    scale: Buffer | None
    total: Buffer | None


def matmul(
    isa: Isa,
    fmt: WeightFormat,
    rows: int,
    k: int,
    *,
    tokens: int | None,
    residual: bool = False,
    dtype: str = "float32",
) -> PrimFunc:
    """y = x w^T, or residual + x w^T (parameters: see the package's docstring).

    `dtype` is y's type, float32 or float16; sums are float32 always.
    """

    def emit() -> None:
        n = ir.token_count(tokens)
        weight = _weight(fmt, rows, k)
        x = _activations(fmt, n, k)
        added = ir.argument("residual", (n, rows), "float32") if residual else None
        y = ir.argument("y", (n, rows), dtype)

        def tile(block: Expr, first: Expr, count: int) -> None:
            sums = _sums(isa, fmt, weight, x, k, block, first, count)
            for token in range(count):
                for part, value in enumerate(sums[token]):
                    lane = part * isa.lanes
                    _finish(y, added, value, dtype, isa.lanes, first + token, block, lane, rows)

        _for_each_block(fmt, -(-rows // ROWS), tokens, n, tile)

    return ir.function(f"matmul_{fmt}", emit)


def gated_matmul(isa: Isa, fmt: WeightFormat, rows: int, k: int, *, tokens: int | None) -> PrimFunc:
    """y = silu(x gate^T) * (x up^T) for one matrix of gate's rows, then up's, `rows` each.

    Raises ValueError unless `rows` is a multiple of 8.
    """
    if rows % ROWS:
        raise ValueError(f"{rows} gate rows do not divide into blocks of {ROWS}")

    def emit() -> None:
        n = ir.token_count(tokens)
        weight = _weight(fmt, 2 * rows, k)
        x = _activations(fmt, n, k)
        y = ir.argument("y", (n, rows), "float32")
        blocks = rows // ROWS

        def tile(block: Expr, first: Expr, count: int) -> None:
            gates = _sums(isa, fmt, weight, x, k, block, first, count)
            ups = _sums(isa, fmt, weight, x, k, block + blocks, first, count)
            for token in range(count):
                for part in range(ROWS // isa.lanes):
                    value = _silu(gates[token][part], isa.lanes) * ups[token][part]
                    at = block * ROWS + part * isa.lanes
                    ir.store(y, value, isa.lanes, first + token, at)

        _for_each_block(fmt, blocks, tokens, n, tile)

    return ir.function(f"gated_matmul_{fmt}", emit)


def _weight(fmt: WeightFormat, rows: int, k: int) -> list[Buffer]:
    tensors = packed_tensors(fmt, rows, k)
    return [ir.argument(tensor.part, tensor.shape, tensor.dtype) for tensor in tensors]


def _activations(fmt: WeightFormat, n: Expr, k: int) -> _Activations:
    if fmt == WeightFormat.F32:
        return _Activations(ir.argument("x", (n, k), "float32"), None, None)
    return _Activations(
        ir.argument("q", (n, k // 4), "int32"),
        ir.argument("scale", (n, k // GROUP), "float32"),
        ir.argument("total", (n, k // GROUP), "float32"),
    )


def _for_each_block(
    fmt: WeightFormat,
    blocks: int,
    tokens: int | None,
    n: Expr,
    tile: Callable[[Expr, Expr, int], None],
) -> None:
    size = _TILE_F32 if fmt == WeightFormat.F32 else _TILE
    with ir.loop(blocks, parallel=True) as block:
        ir.tiles(tokens, n, size, lambda first, count: tile(block, first, count))


def _sums(
    isa: Isa,
    fmt: WeightFormat,
    weight: list[Buffer],
    x: _Activations,
    k: int,
    block: Expr,
    first: Expr,
    count: int,
) -> list[list[Expr]]:
    """Emit the products of one block with `count` tokens; [token][part] vectors of its rows."""
    if fmt == WeightFormat.F32:
        return _sums_f32(isa, weight[0], x.q, k, block, first, count)
    lanes, parts = isa.lanes, ROWS // isa.lanes
    sums = [[_zeros(lanes) for _ in range(parts)] for _ in range(count)]
    with ir.loop(k // GROUP) as group:
        for part in range(parts):
            at = part * lanes
            columns = quads(isa, fmt, weight[0], block, group, at)
            scale = _row_values(weight[1], fmt, lanes, block, group, at)
            minimum = _row_values(weight[2], fmt, lanes, block, group, at) if fmt.has_minimum else 0
            for token in range(count):
                values = spread(isa, x.q, first + token, group)
                product = T.Cast(f"float32x{lanes}", dot(isa, fmt, columns, values))
                assert x.scale is not None and x.total is not None
                step = ir.splat(x.scale[first + token, group], lanes)
                total = x.total[first + token, group]
                old = ir.load(sums[token][part], lanes, 0)
                if fmt.has_minimum:
                    new = old + minimum * ir.splat(total, lanes) + product * (scale * step)
                elif fmt == WeightFormat.Q8_0:
                    new = old + product * (scale * step)
                else:
                    zero = ir.splat(total * T.float32(SYMMETRIC_ZERO), lanes)
                    new = old + scale * (product * step - zero)
                ir.store(sums[token][part], new, lanes, 0)
    return [[T.bind(ir.load(one, lanes, 0)) for one in row] for row in sums]


def _sums_f32(
    isa: Isa, weight: Buffer, x: Buffer, k: int, block: Expr, first: Expr, count: int
) -> list[list[Expr]]:
    lanes, parts = isa.lanes, ROWS // isa.lanes
    chains = max(1, _F32_CHAINS // (count * parts))
    sums = [[[_zeros(lanes) for _ in range(chains)] for _ in range(parts)] for _ in range(count)]
    with ir.loop(k // chains) as step:
        for chain in range(chains):
            column = step * chains + chain
            for part in range(parts):
                values = T.bind(ir.load(weight, lanes, block, column, part * lanes))
                for token in range(count):
                    one = sums[token][part][chain]
                    new = values * ir.splat(x[first + token, column], lanes)
                    ir.store(one, ir.load(one, lanes, 0) + new, lanes, 0)

    def total(some: list[Buffer]) -> Expr:
        value = ir.load(some[0], lanes, 0)
        for one in some[1:]:
            value = value + ir.load(one, lanes, 0)
        return ir.hold(value, lanes)

    return [[total(some) for some in row] for row in sums]


def _zeros(lanes: int) -> Buffer:
    buffer = ir.stack(lanes)
    ir.store(buffer, ir.const(0.0, lanes), lanes, 0)
    return buffer


def _row_values(
    buffer: Buffer, fmt: WeightFormat, lanes: int, block: Expr, group: Expr, at: int
) -> Expr:
    assert fmt.scale_dtype is not None
    return T.bind(ir.to_f32(ir.load(buffer, lanes, block, group, at), fmt.scale_dtype, lanes))


def _finish(
    y: Buffer,
    residual: Buffer | None,
    value: Expr,
    dtype: str,
    lanes: int,
    token: Expr,
    block: Expr,
    lane: int,
    rows: int,
) -> None:
    """Store rows `lane`.. of a block; those beyond the matrix's last row are left out."""

    def put(vector: Expr, width: int, at: Expr) -> None:
        if residual is not None:
            vector = vector + ir.load(residual, width, token, at)
        ir.store(y, ir.to_dtype(vector, dtype, width), width, token, at)

    whole, rest = divmod(rows, ROWS)
    if not rest:
        put(value, lanes, block * ROWS + lane)
        return
    with T.If(block < whole):
        with T.Then():
            put(value, lanes, block * ROWS + lane)
        if lane < rest:
            with T.Else():
                for row in range(lane, min(lane + lanes, rest)):
                    put(T.Shuffle([value], [row - lane]), 1, whole * ROWS + row)


def _silu(x: Expr, lanes: int) -> Expr:
    """x / (1 + e^-x); beyond |x| = 87 e^-x is clamped, which leaves float32's result as it is."""
    power = ir.exp2(x * ir.const(-ir.LOG2_E, lanes), lanes)
    return x / (ir.const(1.0, lanes) + power)
