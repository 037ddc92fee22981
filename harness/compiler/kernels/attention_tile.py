"""The tile of attention: a few query rows over the keys that they share.

A tile walks over its keys in blocks of one page, with an online softmax in base 2 (lse is log2 of
the sum, as the runtime's merge expects). Scores of a block lie [key][row], so that maximum,
exponential and sum run over rows without a horizontal step. All arithmetic is float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels.heads import LANES, PAGE, Heads
from harness.compiler.kernels.ir import Buffer, Expr, T

ROWS = 4
"""The most rows of a tile."""
_AHEAD = 2
"""How many blocks before their use keys and values are asked for: a page is nowhere near the next,
so that a processor does not guess it."""
_SUMS = 12
"""The most vectors of sums over values; a processor has at least 16 registers of this size."""
_PIECE = 128
"""A row of a head is kept on the stack in pieces of at most so many floats."""
_LOWEST = -5e4
"""The score of a masked key, and lse where there is no key: TVM's own kernels use the same."""

Load = Callable[[int, Expr, int, Expr], Expr]
"""`load(which, key in block, lanes, column)`: of keys (0) or values (1)."""


class Keys(NamedTuple):
    """Where a tile finds its keys and values."""

    start_block: Callable[[Expr], Load]
    ask: Callable[[Expr], Callable[[Expr], None]] | None = None
    """`ask(block)(key)` asks for a block's key and value; None where others have just read them."""


class Rows(NamedTuple):
    """The rows of one tile, one entry a row."""

    token: list[Expr]
    head: list[Expr]
    limit: list[Expr]
    """Keys that the row sees: the first so many. Ascending."""
    skip: list[Expr] | None
    """But not the first so many of these, which its window has passed; None without windows."""
    part: Part | None = None
    """Which of these keys the tile takes; None for all."""


class Part(NamedTuple):
    """One of `count` equal parts of a tile's blocks."""

    index: Expr
    count: Expr

    def blocks(self, first: Expr, end: Expr) -> tuple[Expr, Expr]:
        """The part's own of the blocks from `first` to before `end`; perhaps none."""
        size = ir.index((end - first + self.count - 1) // self.count)
        begin = ir.index(first + self.index * size)
        return begin, ir.index(T.max(T.min(begin + size, end), begin))


class Output(NamedTuple):
    q: Buffer
    out: Buffer
    """[token or part, head, column]"""
    lse: Buffer
    """[token or part, head]"""
    scale: Expr
    """What scores are multiplied with."""


def _pieces(size: int) -> list[tuple[int, int]]:
    return [(at, min(_PIECE, size - at)) for at in range(0, size, _PIECE)]


def attend(heads: Heads, output: Output, rows: Rows, keys: Keys, *, masked: bool) -> None:
    """Emit the attention of a tile's rows over their keys."""
    width, size = len(rows.token), heads.size
    query = [[ir.stack(n) for _, n in _pieces(size)] for _ in range(width)]
    result = [[ir.stack(n) for _, n in _pieces(size)] for _ in range(width)]
    lanes = _lanes(width)
    highest, total = ir.stack(lanes), ir.stack(lanes)
    unit = ir.LOG2_E if heads.softcap is None else 2 * ir.LOG2_E / heads.softcap
    factor = ir.splat(ir.hold(output.scale * T.float32(unit)), LANES)
    for i in range(width):
        for piece, (at, n) in enumerate(_pieces(size)):
            with ir.loop(n // LANES) as step:
                column = step * LANES
                raw = ir.load(output.q, LANES, rows.token[i], rows.head[i], at + column)
                scaled = ir.to_f32(raw, heads.dtype, LANES) * factor
                ir.store(query[i][piece], scaled, LANES, column)
                ir.store(result[i][piece], ir.const(0.0, LANES), LANES, column)
    ir.store(highest, ir.const(_LOWEST, lanes), lanes, 0)
    ir.store(total, ir.const(0.0, lanes), lanes, 0)

    sees = _sees(rows) if masked else None
    limit = rows.limit[-1]
    skip = None if rows.skip is None else ir.index(functools.reduce(T.min, rows.skip))
    passed = T.int32(0) if skip is None else ir.index(skip // PAGE)
    end = blocks = ir.index((limit + (PAGE - 1)) // PAGE)
    place = rows.token
    if rows.part is not None:
        passed, end = rows.part.blocks(passed, blocks)
        place = [rows.part.index] * width
    with ir.loop(end - passed) as step:
        block = passed + step
        at = ir.index(block * PAGE)
        count = ir.index(T.min(limit - at, T.int32(PAGE)))
        load = keys.start_block(block)
        ask = keys.ask and keys.ask(T.min(block + _AHEAD, blocks - 1))
        if skip is not None:
            # Only the first block has keys that no row sees.
            unseen = ir.index(T.max(skip - at, T.int32(0)))
            at, count, load = ir.index(at + unseen), ir.index(count - unseen), _after(unseen, load)
        score = ir.stack(PAGE * lanes)
        _scores(heads, query, load, score, count, ask, sees and functools.partial(sees, at))
        keep = _softmax(score, highest, total, lanes)
        _values(heads, load, score, result, keep, count)

    sums = ir.hold(T.max(ir.load(total, lanes, 0), ir.const(1e-37, lanes)), lanes)
    for i in range(width):
        one = ir.hold(_lane(sums, i, lanes))
        inverse = ir.splat(ir.hold(T.float32(1.0) / one), LANES)
        for piece, (start, n) in enumerate(_pieces(size)):
            with ir.loop(n // LANES) as step:
                value = ir.load(result[i][piece], LANES, step * LANES) * inverse
                column = start + step * LANES
                value = ir.to_dtype(value, output.out.dtype, LANES)
                ir.store(output.out, value, LANES, place[i], rows.head[i], column)
        lse = highest[i] + T.log2(one)
        ir.store(output.lse, lse, 1, place[i], rows.head[i])


def _lanes(rows: int) -> int:
    """Lanes of a vector with one score a row; those without a row repeat the last row's."""
    return 1 << (rows - 1).bit_length()


def _lane(vector: Expr, i: int, lanes: int) -> Expr:
    return T.Shuffle([vector], [i]) if lanes > 1 else vector


def _after(unseen: Expr, load: Load) -> Load:
    """`load` for a block without its first keys."""
    return lambda which, key, lanes, column: load(which, unseen + key, lanes, column)


def _sees(rows: Rows) -> Callable[[Expr, Expr, Expr], Expr]:
    """Emit what masks need; `sees(first key of the block, key, scores)` masks a key's scores."""
    lanes = _lanes(len(rows.token))

    def each(values: list[Expr]) -> Expr:
        values = values + values[-1:] * (lanes - len(values))
        vector = T.Shuffle(values, [*range(lanes)]) if lanes > 1 else values[0]
        return ir.hold(vector, lanes, "int32")

    limit = each(rows.limit)
    skip = None if rows.skip is None else each(rows.skip)

    def mask(at: Expr, key: Expr, scores: Expr) -> Expr:
        place = ir.hold(ir.splat(at + key, lanes), lanes, "int32")
        scores = T.Select(place < limit, scores, ir.const(_LOWEST, lanes))
        if skip is not None:
            scores = T.Select(place >= skip, scores, ir.const(_LOWEST, lanes))
        return scores

    return mask


def _scores(
    heads: Heads,
    query: list[list[Buffer]],
    load: Load,
    score: Buffer,
    count: Expr,
    ask: Callable[[Expr], None] | None,
    mask: Callable[[Expr, Expr], Expr] | None,
) -> None:
    """Fill a block's scores [key][row], in base 2."""
    width = len(query)
    lanes = _lanes(width)
    with ir.loop(count) as key:
        if ask is not None:
            ask(key)
        sums: list[Expr] = [None] * width
        for column in range(0, heads.size, LANES):
            k = T.bind(ir.to_f32(load(0, key, LANES, column), heads.dtype, LANES))
            for i in range(width):
                q = ir.load(query[i][column // _PIECE], LANES, column % _PIECE)
                sums[i] = k * q if sums[i] is None else sums[i] + k * q
        values = _across(sums + sums[-1:] * (lanes - width))
        if heads.softcap is not None:
            values = _capped(values, heads.softcap, lanes)
        if mask is not None:
            values = mask(key, values)
        ir.store(score, values, lanes, key * lanes)
    with ir.loop(PAGE - count) as rest:
        ir.store(score, ir.const(_LOWEST, lanes), lanes, (count + rest) * lanes)


def _capped(doubled: Expr, cap: float, width: int) -> Expr:
    """cap * tanh(score / cap) in base 2, of 2 * score / cap in base 2.

    tanh(x) = 1 - 2 / (exp(2 x) + 1); it is off by a few 2^-24, whatever x.
    """
    one = ir.const(1.0, width)
    part = ir.const(2.0, width) / (ir.exp2(doubled, width) + one)
    return ir.hold((one - part) * ir.const(cap * ir.LOG2_E, width), width)


def _across(sums: list[Expr]) -> Expr:
    """The sum of each vector's eight lanes, one lane a vector."""
    if len(sums) == 1:
        return ir.fold(sums[0], LANES, ir.add)
    # Pairs of neighbours within each half, as AVX's horizontal add does it.
    even, odd = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]

    def pairwise(a: Expr, b: Expr) -> Expr:
        a, b = ir.hold(a, LANES), ir.hold(b, LANES)
        return T.Shuffle([a, b], even) + T.Shuffle([a, b], odd)

    halves = pairwise(sums[0], sums[1])
    if len(sums) == 2:
        halves = pairwise(halves, halves)
        low, high = [0, 1], [4, 5]
    else:
        halves = pairwise(halves, pairwise(sums[2], sums[3]))
        low, high = [0, 1, 2, 3], [4, 5, 6, 7]
    halves = ir.hold(halves, LANES)
    return ir.hold(T.Shuffle([halves], low) + T.Shuffle([halves], high), len(sums))


def _softmax(score: Buffer, highest: Buffer, total: Buffer, width: int) -> Expr:
    """Turn a block's scores into weights; returns the factor for what was summed before."""
    values = [ir.load(score, width, key * width) for key in range(PAGE)]
    old = T.bind(ir.load(highest, width, 0))
    new = ir.hold(T.max(old, ir.tree(values, T.max)), width)
    keep = ir.exp2(old - new, width)
    ir.store(highest, new, width, 0)
    if width == 1:
        repeat = ir.splat(new, LANES)
    else:
        repeat = ir.hold(T.Shuffle([new] * (LANES // width), [*range(LANES)]), LANES)
    parts = []
    for at in range(0, PAGE * width, LANES):
        weights = ir.exp2(ir.load(score, LANES, at) - repeat, LANES)
        ir.store(score, weights, LANES, at)
        parts.append(weights)
    part = ir.fold(ir.tree(parts), LANES, ir.add, to=width)
    ir.store(total, ir.load(total, width, 0) * keep + part, width, 0)
    return keep


def _values(
    heads: Heads,
    load: Callable[[int, Expr, int, Expr], Expr],
    score: Buffer,
    result: list[list[Buffer]],
    keep: Expr,
    count: Expr,
) -> None:
    """Add a block's weighted values to what was summed before."""
    width = len(result)
    lanes = _lanes(width)
    chunks = 1
    while 2 * chunks * width <= _SUMS and heads.size % (2 * chunks * LANES) == 0:
        chunks *= 2
    kept = [ir.hold(_lane(keep, i, lanes)) for i in range(width)]
    for piece, (start, n) in enumerate(_pieces(heads.size)):
        with ir.loop(n // (chunks * LANES)) as step:
            columns = [(step * chunks + c) * LANES for c in range(chunks)]
            sums = [[ir.stack(LANES) for _ in columns] for _ in range(width)]
            for i in range(width):
                for one, column in zip(sums[i], columns, strict=True):
                    before = ir.load(result[i][piece], LANES, column)
                    ir.store(one, before * ir.splat(kept[i], LANES), LANES, 0)
            with ir.loop(count) as key:
                weights = [T.bind(ir.splat(score[key * lanes + i], LANES)) for i in range(width)]
                for c, column in enumerate(columns):
                    raw = load(1, key, LANES, start + column)
                    value = T.bind(ir.to_f32(raw, heads.dtype, LANES))
                    for i, weight in enumerate(weights):
                        new = ir.load(sums[i][c], LANES, 0) + value * weight
                        ir.store(sums[i][c], new, LANES, 0)
            for i in range(width):
                for one, column in zip(sums[i], columns, strict=True):
                    ir.store(result[i][piece], ir.load(one, LANES, 0), LANES, column)
