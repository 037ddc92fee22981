"""Products of packed weight matrices with one token's or many tokens' activations.

A thread takes a run of row blocks. For each block, a tile of tokens is taken at once: the block's
weights are unpacked to registers once a step and serve every token of the tile. With activations
in int8 the products of a step are exact integers; with float32 the weights are dequantized first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels.dot import products, quads
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import ROWS, WeightFormat, packed_tensors

ActivationType = Literal["int8", "float32"]
"""What a quantized matrix is multiplied with; others always take float32."""
Gate = Literal["silu", "gelu_tanh"]

_TILE = 4
_TILE_UNQUANTIZED = 8
_F32_CHAINS = 8
_LINE_BYTES = 64
_AHEAD_BYTES = 4096
"""How far before its use a matrix's line is asked for: a processor's own prefetching reaches less
far and stops at the ends of pages, so that one token's pass over the weights would wait at each."""


def matmul(
    isa: Isa,
    fmt: WeightFormat,
    rows: int,
    k: int,
    *,
    tokens: int | None,
    activations: ActivationType = "int8",
    bias: bool = False,
    softcap: float | None = None,
    residual: bool = False,
    dtype: str = "float32",
    tile: int | None = None,
) -> PrimFunc:
    """y = x w^T [+ bias], then cap * tanh(y / cap) if there is a soft cap, then [+ residual].

    The parameters are in the package's docstring. `dtype` is y's type, float32 or float16; sums
    are float32 always. `tile` is how many of many tokens share the weights that were unpacked,
    else what the weights' form is best with on most processors.
    """

    def emit() -> None:
        n = ir.token_count(tokens)
        product = _Product(isa, fmt, rows, k, n, activations, tile)
        offset = ir.argument("bias", (rows,), "float32") if bias else None
        added = ir.argument("residual", (n, rows), "float32") if residual else None
        y = ir.argument("y", (n, rows), dtype)

        def put(value: Expr, width: int, token: Expr, row: Expr) -> None:
            if offset is not None:
                value = value + ir.load(offset, width, row)
            if softcap is not None:
                cap = ir.const(softcap, width)
                value = ir.tanh(value / cap, width) * cap
            if added is not None:
                value = value + ir.load(added, width, token, row)
            ir.store(y, ir.to_dtype(value, dtype, width), width, token, row)

        def emit_tile(block: Expr, first: Expr, count: int) -> None:
            for token, parts in enumerate(product.sums(block, first, count)):
                for part, value in enumerate(parts):
                    _put_rows(put, value, isa.lanes, first + token, block, part * isa.lanes, rows)

        product.for_each_block(-(-rows // ROWS), tokens, emit_tile)

    return ir.function("matmul", emit)


def gated_matmul(
    isa: Isa,
    fmt: WeightFormat,
    rows: int,
    k: int,
    *,
    tokens: int | None,
    activations: ActivationType = "int8",
    activation: Gate = "silu",
    tile: int | None = None,
) -> PrimFunc:
    """y = act(x gate^T) * (x up^T) for one matrix of gate's rows, then up's, `rows` each.

    Raises ValueError unless `rows` is a multiple of 8.
    """
    if rows % ROWS:
        raise ValueError(f"{rows} gate rows do not divide into blocks of {ROWS}")
    act = {"silu": _silu, "gelu_tanh": _gelu_tanh}[activation]

    def emit() -> None:
        n = ir.token_count(tokens)
        product = _Product(isa, fmt, 2 * rows, k, n, activations, tile)
        y = ir.argument("y", (n, rows), "float32")
        blocks = rows // ROWS

        def emit_tile(block: Expr, first: Expr, count: int) -> None:
            gates = product.sums(block, first, count)
            ups = product.sums(block + blocks, first, count)
            for token in range(count):
                for part in range(ROWS // isa.lanes):
                    value = act(gates[token][part], isa.lanes) * ups[token][part]
                    at = block * ROWS + part * isa.lanes
                    ir.store(y, value, isa.lanes, first + token, at)

        product.for_each_block(blocks, tokens, emit_tile)

    return ir.function("gated_matmul", emit)


class _Int8(NamedTuple):
    """Activations as `activations.quantize` writes them."""

    q: Buffer
    scale: Buffer
    total: Buffer


class _Product:
    """The products of a packed matrix's blocks with tokens, within the kernel that is emitted.

    Declares the kernel's parameters for the matrix and the activations.
    """

    def __init__(
        self,
        isa: Isa,
        fmt: WeightFormat,
        rows: int,
        k: int,
        n: Expr,
        activations: ActivationType,
        tile: int | None,
    ) -> None:
        self.isa = isa
        self.fmt = fmt
        self.k = k
        self.n = n
        self.tile = tile or (_TILE if fmt.quantized else _TILE_UNQUANTIZED)
        self.lanes = isa.lanes
        self.parts = ROWS // isa.lanes
        self.once = isinstance(n, int) and n == 1
        """Whether the weights serve one token and are not read again for others."""
        tensors = packed_tensors(fmt, rows, k)
        self.weight = [ir.argument(tensor.part, tensor.shape, tensor.dtype) for tensor in tensors]
        self.x: Buffer | _Int8
        if activations == "float32" or not fmt.quantized:
            self.x = ir.argument("x", (n, k), "float32")
        else:
            steps = fmt.steps(k)
            self.x = _Int8(
                ir.argument("q", (n, steps * fmt.step // 4), "int32"),
                ir.argument("scale", (n, steps), "float32"),
                ir.argument("total", (n, steps), "float32"),
            )

    def for_each_block(
        self, blocks: int, tokens: int | None, emit: Callable[[Expr, Expr, int], None]
    ) -> None:
        """Emit `emit(block, first token, tokens)` for all blocks, shared among the threads."""
        with ir.loop(blocks, parallel=True) as block:
            ir.tiles(tokens, self.n, self.tile, lambda first, count: emit(block, first, count))

    def sums(self, block: Expr, first: Expr, count: int) -> list[list[Expr]]:
        """Emit the products of a block with `count` tokens; [token][part] vectors of its rows."""
        if isinstance(self.x, _Int8):
            return self._int8_sums(self.x, block, first, count)
        return self._float_sums(self.x, block, first, count)

    def _int8_sums(self, x: _Int8, block: Expr, first: Expr, count: int) -> list[list[Expr]]:
        fmt, lanes = self.fmt, self.lanes
        words = fmt.step // 4
        sums = [[_zeros(lanes) for _ in range(self.parts)] for _ in range(count)]
        with ir.loop(fmt.steps(self.k)) as step:
            self._prefetch(block, step)
            for part in range(self.parts):
                columns = quads(fmt, lanes, self.weight[0], block, step, part * lanes)
                scale, minimum = self._group(block, step, part)
                tokens = [first + token for token in range(count)]
                dots = products(self.isa, fmt, columns, x.q, tokens, step * words)
                for token, dot in enumerate(dots):
                    product = T.Cast(f"float32x{lanes}", dot)
                    size = ir.splat(x.scale[first + token, step], lanes)
                    total = x.total[first + token, step]
                    old = ir.load(sums[token][part], lanes, 0)
                    if minimum is not None:
                        new = old + minimum * ir.splat(total, lanes) + product * (scale * size)
                    elif fmt.zero == 0:
                        new = old + product * (scale * size)
                    else:
                        zero = ir.splat(total * T.float32(fmt.zero), lanes)
                        new = old + scale * (product * size - zero)
                    ir.store(sums[token][part], new, lanes, 0)
        return [[T.bind(ir.load(one, lanes, 0)) for one in row] for row in sums]

    def _float_sums(self, x: Buffer, block: Expr, first: Expr, count: int) -> list[list[Expr]]:
        lanes, parts = self.lanes, self.parts
        # Each sum is spread over several registers, or every addition would wait for the last.
        chains = max(1, _F32_CHAINS // (count * parts))
        sums = [
            [[_zeros(lanes) for _ in range(chains)] for _ in range(parts)] for _ in range(count)
        ]

        def add(column: Expr, chain: int, part: int, weight: Expr) -> None:
            for token in range(count):
                one = sums[token][part][chain]
                new = weight * ir.splat(x[first + token, column], lanes)
                ir.store(one, ir.load(one, lanes, 0) + new, lanes, 0)

        if self.fmt.quantized:
            self._for_each_dequantized(
                block, lambda column, i, part, weight: add(column, i % chains, part, weight)
            )
        else:
            with ir.loop(self.k // chains) as step:
                self._prefetch(block, step * chains, chains)
                for chain in range(chains):
                    column = step * chains + chain
                    for part in range(parts):
                        stored = ir.load(self.weight[0], lanes, block, column, part * lanes)
                        values = ir.to_f32(stored, self.fmt.dtype, lanes)
                        add(column, chain, part, T.bind(values))

        def total(some: list[Buffer]) -> Expr:
            value = ir.load(some[0], lanes, 0)
            for one in some[1:]:
                value = value + ir.load(one, lanes, 0)
            return ir.hold(value, lanes)

        return [[total(some) for some in row] for row in sums]

    def _for_each_dequantized(
        self, block: Expr, emit: Callable[[Expr, int, int, Expr], None]
    ) -> None:
        """Emit `emit(column, column within its step, part, weights)` for all of a block."""
        fmt, lanes = self.fmt, self.lanes

        def take(step: Expr, columns: int) -> None:
            for part in range(self.parts):
                found = [
                    ir.hold(T.reinterpret(f"int32x{lanes}", quad), lanes, "int32")
                    for quad in quads(fmt, lanes, self.weight[0], block, step, part * lanes)
                ]
                scale, minimum = self._group(block, step, part)
                for i in range(columns):
                    left = T.shift_left(found[i // 4], ir.splat(T.int32(24 - 8 * (i % 4)), lanes))
                    q = T.shift_right(left, ir.splat(T.int32(24), lanes))
                    weight = T.Cast(f"float32x{lanes}", q - ir.splat(T.int32(fmt.zero), lanes))
                    weight = weight * scale if minimum is None else weight * scale + minimum
                    emit(step * fmt.step + i, i, part, ir.hold(weight, lanes))

        whole, rest = divmod(self.k, fmt.step)
        with ir.loop(whole) as step:
            self._prefetch(block, step)
            take(step, fmt.step)
        if rest:
            take(whole, rest)

    def _prefetch(self, block: Expr, first: Expr, count: int = 1) -> None:
        """Ask for the weights `_AHEAD_BYTES` behind `count` steps from `first`.

        The steps of a weight that is not quantized are its columns. Blocks follow each other in
        memory, so that this runs on into the next one.
        """
        if not self.once:
            return
        fmt, (values, *groups) = self.fmt, self.weight
        item = 4 if fmt.quantized else fmt.bits // 8
        size = item * int(values.shape[-1])
        ahead = first + _AHEAD_BYTES // size
        for at in range(0, count * size, _LINE_BYTES):
            ir.prefetch(values, block, ahead + at // size, at % size // item)
        for buffer in groups:
            ir.prefetch(buffer, block, ahead // (fmt.group // fmt.step), 0)

    def _group(self, block: Expr, step: Expr, part: int) -> tuple[Expr, Expr | None]:
        """The scales, and the minima if there are any, of the group that a step belongs to."""
        group = step // (self.fmt.group // self.fmt.step)
        scale, *minimum = (
            T.bind(
                ir.to_f32(
                    ir.load(buffer, self.lanes, block, group, part * self.lanes),
                    self.fmt.dtype,
                    self.lanes,
                )
            )
            for buffer in self.weight[1:]
        )
        return scale, minimum[0] if minimum else None


def _zeros(lanes: int) -> Buffer:
    buffer = ir.stack(lanes)
    ir.store(buffer, ir.const(0.0, lanes), lanes, 0)
    return buffer


def _put_rows(
    put: Callable[[Expr, int, Expr, Expr], None],
    value: Expr,
    lanes: int,
    token: Expr,
    block: Expr,
    lane: int,
    rows: int,
) -> None:
    """Put rows `lane`.. of a block; those beyond the matrix's last row are left out."""
    whole, rest = divmod(rows, ROWS)
    if not rest:
        put(value, lanes, token, block * ROWS + lane)
        return
    with T.If(block < whole):
        with T.Then():
            put(value, lanes, token, block * ROWS + lane)
        if lane < rest:
            with T.Else():
                for row in range(lane, min(lane + lanes, rest)):
                    put(T.Shuffle([value], [row - lane]), 1, token, whole * ROWS + row)


def _silu(x: Expr, lanes: int) -> Expr:
    """x / (1 + e^-x)."""
    return _logistic(x, x, lanes)


def _gelu_tanh(x: Expr, lanes: int) -> Expr:
    """x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3): Hendrycks and Gimpel 2016.

    (1 + tanh u) / 2 is 1 / (1 + e^-2u), where nothing cancels for negative x.
    """
    cubic = x * (x * x * ir.const(0.044715, lanes) + ir.const(1.0, lanes))
    return _logistic(x, cubic * ir.const(2 * math.sqrt(2 / math.pi), lanes), lanes)


def _logistic(x: Expr, of: Expr, lanes: int) -> Expr:
    """x / (1 + e^-of); beyond |of| = 87 e^-of is clamped, where the result is x or near 0."""
    power = ir.exp2(of * ir.const(-ir.LOG2_E, lanes), lanes)
    return x / (ir.const(1.0, lanes) + power)
