"""Attention for the paged KV cache: decode, prefill over pages, prefill over the new tokens.

The signatures are those with which TVM's runtime calls them (`src/runtime/vm/attn_backend.h`,
class TIRPagedPrefillFunc and its neighbours). q, k, v, the pages and the output have one type,
float16 or float32, as the runtime demands; all arithmetic is float32.

The work is cut into tiles of up to four query rows that share a key/value head: heads of one
group, tokens, or both. A tile walks over its keys in blocks of one page, with an online softmax in
base 2 (lse is log2 of the sum, as the runtime's merge expects). Scores of a block lie [key][row],
so that maximum, exponential and sum run over rows without a horizontal step.

One token has few tiles, perhaps a single one, and many keys: they are cut into parts, for more
threads to work on, whose results are merged as the runtime merges its own. How many parts depends
on the keys alone, so that results do not depend on the number of threads.

Sliding windows live in these kernels and not in the runtime, whose own windows do not move within a
chunk of new tokens: every layer keeps all its keys, and a query at position p sees those at
(p - window, p]. Of what the runtime hands to a kernel only the scale belongs to a layer, so its
sign tells the layers apart: `layer_scale` gives a windowed layer a negative one. Positions are the
runtime's, which fills `q_rope_position` (one a token) and `k_rope_pos_offset` (the first key's, one
a sequence or shared block) whether it rotates or not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T
from harness.compiler.model_config import PAGE_TOKENS

PAGE = PAGE_TOKENS
_LANES = 8
_ROWS = 4
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
_PARALLEL_KEYS = 256
"""One token's attention over fewer keys is over before a second thread has woken up."""
_PARTS = 8
"""The most parts that one token's keys are cut into, of `_PARALLEL_KEYS` keys at least."""
_NO_WINDOW = 1 << 30
"""The window of a layer that sees everything: larger than any position."""


class Heads(NamedTuple):
    """The sizes of one model's attention, and the type of q, k, v and the pages.

    `window` is how many keys, the query's own included, the model's windowed layers see. With a
    `softcap` c, a scaled score s counts as c * tanh(s / c) (Gemma 2).
    """

    query: int
    key_value: int
    size: int
    dtype: str
    window: int | None = None
    softcap: float | None = None

    @property
    def group(self) -> int:
        """Query heads for each key/value head."""
        return self.query // self.key_value

    def check(self) -> None:
        """Raise ValueError for sizes that the kernels do not serve."""
        if self.query % self.key_value:
            raise ValueError(f"{self.query} heads do not share {self.key_value} key/value heads")
        if self.size % _LANES:
            raise ValueError(f"a head size of {self.size} is not a multiple of {_LANES}")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"a KV cache of {self.dtype} is not supported")
        if self.window is not None and not 0 < self.window < _NO_WINDOW:
            raise ValueError(f"a window of {self.window} keys is not supported")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"a soft cap of {self.softcap} is not positive")


def layer_scale(scale: float, *, windowed: bool) -> float:
    """What a layer hands the runtime as `sm_scale`: the kernels take a negative one as windowed.

    `scale` is what its scores are multiplied with. A windowed layer needs `Heads.window`.
    """
    return -scale if windowed else scale


_Load = Callable[[int, Expr, int, Expr], Expr]
"""`load(which, key in block, lanes, column)`: of keys (0) or values (1)."""


class _Keys(NamedTuple):
    """Where a tile finds its keys and values."""

    start_block: Callable[[Expr], _Load]
    ask: Callable[[Expr], Callable[[Expr], None]] | None = None
    """`ask(block)(key)` asks for a block's key and value; None where others have just read them."""


class _Rows(NamedTuple):
    """The rows of one tile, one entry a row."""

    token: list[Expr]
    head: list[Expr]
    limit: list[Expr]
    """Keys that the row sees: the first so many. Ascending."""
    skip: list[Expr] | None
    """But not the first so many of these, which its window has passed; None without windows."""
    part: _Part | None = None
    """Which of these keys the tile takes; None for all."""


class _Part(NamedTuple):
    """One of `count` equal parts of a tile's blocks."""

    index: Expr
    count: Expr

    def blocks(self, first: Expr, end: Expr) -> tuple[Expr, Expr]:
        """The part's own of the blocks from `first` to before `end`; perhaps none."""
        size = ir.index((end - first + self.count - 1) // self.count)
        begin = ir.index(first + self.index * size)
        return begin, ir.index(T.max(T.min(begin + size, end), begin))


class _Output(NamedTuple):
    q: Buffer
    out: Buffer
    """[token or part, head, column]"""
    lse: Buffer
    """[token or part, head]"""
    scale: Expr
    """What scores are multiplied with."""


class _Window(NamedTuple):
    """The windows of a kernel's queries: `size` keys, all of them in a layer without a window."""

    size: Expr
    query_positions: Buffer
    key_positions: Buffer
    """The position of each sequence's first key."""

    def skip(self, sequence: Expr, token: Expr, length: Expr) -> Expr:
        """How many of the first `length` keys of a sequence are before a token's window."""
        distance = self.query_positions[token] - self.key_positions[sequence]
        return ir.index(T.max(T.min(distance - self.size + 1, length), T.int32(0)))


def decode(heads: Heads) -> PrimFunc:
    """One new token for each sequence, whose key and value are in the pages already."""
    heads.check()

    def emit() -> None:
        batch, entries, total = T.int32(), T.int32(), T.int32()
        q = ir.argument("q", (batch, heads.query, heads.size), heads.dtype)
        pages = ir.argument("pages", _pages_shape(heads, total), heads.dtype)
        indptr = ir.argument("page_indptr", (batch + 1,), "int32", view=True)
        values = ir.argument("page_values", (entries,), "int32", view=True)
        last = ir.argument("length_info", (batch,), "int32", view=True)
        key_positions = ir.argument("k_rope_pos_offset", (batch,), "int32", view=True)
        query_positions = ir.argument("q_rope_position", (batch,), "int32", view=True)
        out = ir.argument("output", (batch, heads.query, heads.size), heads.dtype)
        lse = ir.argument("lse", (batch, heads.query), "float32")
        scale, window = _scalars(heads, query_positions, key_positions)
        partial = T.alloc_buffer((_PARTS, heads.query, heads.size), "float32")
        partial_lse = T.alloc_buffer((_PARTS, heads.query), "float32")
        output = _Output(q, partial, partial_lse, scale)
        tiles = -(-heads.group // _ROWS)
        width = -(-heads.group // tiles)

        with ir.loop(batch) as sequence:
            begin = ir.index(indptr[sequence])
            length = ir.index(_length(indptr, last, sequence))
            skip = window.skip(sequence, sequence, length) if window else None
            seen = ir.index(length if skip is None else length - skip)
            parts = ir.index(T.max(T.min(seen // _PARALLEL_KEYS, T.int32(_PARTS)), T.int32(1)))

            def tile(task: Expr) -> None:
                part, rest = ir.index(task % parts), ir.index(task // parts)
                head, first = ir.index(rest // tiles), ir.index(rest % tiles * width)
                inside = [T.min(first + i, T.int32(heads.group - 1)) for i in range(width)]
                rows = _Rows(
                    [sequence] * width,
                    [ir.index(head * heads.group + i) for i in inside],
                    [length] * width,
                    None if skip is None else [skip] * width,
                    _Part(part, parts),
                )
                keys = _paged(heads, pages, values, begin, head, once=True)
                _tile(heads, output, rows, keys, masked=False)

            _tasks(heads.key_value * tiles * parts, seen >= _PARALLEL_KEYS, tile)
            _merge(heads, output, parts, out, lse, sequence)

    return ir.function("attention_decode", emit)


def prefill_paged(heads: Heads) -> PrimFunc:
    """New tokens of each sequence over its pages (those before this chunk, unless causal)."""
    heads.check()

    def emit() -> None:
        batch, n, entries, total = T.int32(), T.int32(), T.int32(), T.int32()
        q = ir.argument("q", (n, heads.query, heads.size), heads.dtype)
        q_indptr = ir.argument("q_indptr", (batch + 1,), "int32", view=True)
        pages = ir.argument("pages", _pages_shape(heads, total), heads.dtype)
        indptr = ir.argument("page_indptr", (batch + 1,), "int32", view=True)
        values = ir.argument("page_values", (entries,), "int32", view=True)
        last = ir.argument("length_info", (batch,), "int32", view=True)
        key_positions = ir.argument("k_rope_pos_offset", (batch,), "int32", view=True)
        query_positions = ir.argument("q_rope_position", (n,), "int32", view=True)
        out = ir.argument("output", (n, heads.query, heads.size), heads.dtype)
        lse = ir.argument("lse", (n, heads.query), "float32")
        causal = T.arg("causal", T.int32())
        scale, window = _scalars(heads, query_positions, key_positions)
        output = _Output(q, out, lse, scale)

        with ir.loop(batch) as sequence:
            begin = ir.index(indptr[sequence])
            length = ir.index(_length(indptr, last, sequence))

            def keys(head: Expr) -> _Keys:
                return _paged(heads, pages, values, begin, head)

            _prefill(heads, output, window, q_indptr, sequence, length, causal, keys)

    return ir.function("attention_prefill_paged", emit)


def prefill_ragged(heads: Heads) -> PrimFunc:
    """New tokens of each sequence over the new keys and values themselves."""
    heads.check()

    def emit() -> None:
        batch, n, kv_n = T.int32(), T.int32(), T.int32()
        q = ir.argument("q", (n, heads.query, heads.size), heads.dtype)
        q_indptr = ir.argument("q_indptr", (batch + 1,), "int32", view=True)
        k = ir.argument("k", (kv_n, heads.key_value, heads.size), heads.dtype)
        v = ir.argument("v", (kv_n, heads.key_value, heads.size), heads.dtype)
        kv_indptr = ir.argument("kv_indptr", (batch + 1,), "int32", view=True)
        query_positions = ir.argument("q_rope_position", (n,), "int32", view=True)
        key_positions = ir.argument("k_rope_pos_offset", (batch,), "int32", view=True)
        out = ir.argument("output", (n, heads.query, heads.size), heads.dtype)
        lse = ir.argument("lse", (n, heads.query), "float32")
        causal = T.arg("causal", T.int32())
        scale, window = _scalars(heads, query_positions, key_positions)
        output = _Output(q, out, lse, scale)

        with ir.loop(batch) as sequence:
            begin = ir.index(kv_indptr[sequence])
            length = ir.index(kv_indptr[sequence + 1] - begin)

            def keys(head: Expr) -> _Keys:
                def start_block(block: Expr) -> _Load:
                    first = ir.index(begin + block * PAGE)
                    return lambda which, key, lanes, column: ir.load(
                        (k, v)[which], lanes, first + key, head, column
                    )

                return _Keys(start_block)

            _prefill(heads, output, window, q_indptr, sequence, length, causal, keys)

    return ir.function("attention_prefill_ragged", emit)


def _scalars(
    heads: Heads, query_positions: Buffer, key_positions: Buffer
) -> tuple[Expr, _Window | None]:
    """Declare the last parameters; RoPE has its own kernel, so only the scale is used.

    Returns what scores are multiplied with, and the window if the model has windowed layers.
    """
    T.arg("rotary_mode", T.int32())
    T.arg("rope_scale", T.float32())
    T.arg("rope_theta", T.float32())
    scale = T.arg("sm_scale", T.float32())
    if heads.window is None:
        return scale, None
    size = T.Select(scale < 0, T.int32(heads.window), T.int32(_NO_WINDOW))
    return ir.hold(T.abs(scale)), _Window(ir.index(size), query_positions, key_positions)


def _pages_shape(heads: Heads, total: Expr) -> tuple[Expr | int, ...]:
    return (total, 2, heads.key_value, PAGE, heads.size)


def _length(indptr: Buffer, last: Buffer, sequence: Expr) -> Expr:
    """Keys in a sequence's pages: all are full but the last."""
    pages = indptr[sequence + 1] - indptr[sequence]
    return T.if_then_else(pages > 0, (pages - 1) * PAGE + last[sequence], T.int32(0))


def _paged(
    heads: Heads, pages: Buffer, values: Buffer, begin: Expr, head: Expr, *, once: bool = False
) -> _Keys:
    """The keys of a sequence's pages; `once` says that nobody else reads them."""

    def start_block(block: Expr) -> _Load:
        page = ir.index(values[begin + block])
        return lambda which, key, lanes, column: ir.load(
            pages, lanes, page, which, head, key, column
        )

    def ask(block: Expr) -> Callable[[Expr], None]:
        page = ir.index(values[begin + block])
        line = 32 if heads.dtype == "float16" else 16

        def lines(key: Expr) -> None:
            for which in range(2):
                for column in range(0, heads.size, line):
                    ir.prefetch(pages, page, which, head, key, column)

        return lines

    return _Keys(start_block, ask if once else None)


def _tasks(count: Expr, worth_threads: Expr, emit: Callable[[Expr], None]) -> None:
    with T.If(worth_threads):
        with T.Then(), ir.loop(count, parallel=True) as task:
            emit(task)
        with T.Else(), ir.loop(count) as task:
            emit(task)


def _prefill(
    heads: Heads,
    output: _Output,
    window: _Window | None,
    q_indptr: Buffer,
    sequence: Expr,
    length: Expr,
    causal: Expr,
    keys: Callable[[Expr], _Keys],
) -> None:
    width = _ROWS
    q_begin = ir.index(q_indptr[sequence])
    tokens = ir.index(q_indptr[sequence + 1] - q_begin)
    count = ir.index(tokens * heads.group)
    tiles = ir.index((count + (width - 1)) // width)

    def tile(task: Expr) -> None:
        # Later tokens see more keys: early and late tiles alternate, so that each thread gets both.
        head, turn = ir.index(task // tiles), ir.index(task % tiles)
        first = T.Select(turn % 2 == 0, turn // 2, tiles - 1 - turn // 2)
        first = ir.index(first * width)
        flat = [ir.index(T.min(first + i, count - 1)) for i in range(width)]
        inside = [ir.index(i // heads.group) for i in flat]
        rows = _Rows(
            [ir.index(q_begin + i) for i in inside],
            [ir.index(head * heads.group + i % heads.group) for i in flat],
            [ir.index(T.if_then_else(causal > 0, length - tokens + i + 1, length)) for i in inside],
            window and [window.skip(sequence, q_begin + i, length) for i in inside],
        )
        _tile(heads, output, rows, keys(head), masked=True)

    seen = T.min(length, window.size) if window else length
    _tasks(heads.key_value * tiles, tokens * seen >= 4 * _PARALLEL_KEYS, tile)


def _pieces(size: int) -> list[tuple[int, int]]:
    return [(at, min(_PIECE, size - at)) for at in range(0, size, _PIECE)]


def _tile(heads: Heads, output: _Output, rows: _Rows, keys: _Keys, *, masked: bool) -> None:
    """Emit the attention of a tile's rows over their keys."""
    width, size = len(rows.token), heads.size
    query = [[ir.stack(n) for _, n in _pieces(size)] for _ in range(width)]
    result = [[ir.stack(n) for _, n in _pieces(size)] for _ in range(width)]
    lanes = _lanes(width)
    highest, total = ir.stack(lanes), ir.stack(lanes)
    unit = ir.LOG2_E if heads.softcap is None else 2 * ir.LOG2_E / heads.softcap
    factor = ir.splat(ir.hold(output.scale * T.float32(unit)), _LANES)
    for i in range(width):
        for piece, (at, n) in enumerate(_pieces(size)):
            with ir.loop(n // _LANES) as step:
                column = step * _LANES
                raw = ir.load(output.q, _LANES, rows.token[i], rows.head[i], at + column)
                scaled = ir.to_f32(raw, heads.dtype, _LANES) * factor
                ir.store(query[i][piece], scaled, _LANES, column)
                ir.store(result[i][piece], ir.const(0.0, _LANES), _LANES, column)
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
        inverse = ir.splat(ir.hold(T.float32(1.0) / one), _LANES)
        for piece, (start, n) in enumerate(_pieces(size)):
            with ir.loop(n // _LANES) as step:
                value = ir.load(result[i][piece], _LANES, step * _LANES) * inverse
                column = start + step * _LANES
                value = ir.to_dtype(value, output.out.dtype, _LANES)
                ir.store(output.out, value, _LANES, place[i], rows.head[i], column)
        lse = highest[i] + T.log2(one)
        ir.store(output.lse, lse, 1, place[i], rows.head[i])


def _merge(
    heads: Heads, partial: _Output, parts: Expr, out: Buffer, lse: Buffer, token: Expr
) -> None:
    """Emit a token's output and lse from those of its parts, each of which counts by 2^lse."""
    with ir.loop(heads.query) as head:
        highest, total, weights = ir.stack(1), ir.stack(1), ir.stack(_PARTS)
        ir.store(highest, partial.lse[0, head], 1, 0)
        ir.store(total, T.float32(0.0), 1, 0)
        with ir.loop(parts) as part:
            ir.store(highest, T.max(highest[0], partial.lse[part, head]), 1, 0)
        with ir.loop(parts) as part:
            weight = ir.exp2(partial.lse[part, head] - highest[0], 1)
            ir.store(weights, weight, 1, part)
            ir.store(total, total[0] + weights[part], 1, 0)
        inverse = ir.splat(ir.hold(T.float32(1.0) / total[0]), _LANES)
        with ir.loop(heads.size // _LANES) as step:
            sums = ir.stack(_LANES)
            ir.store(sums, ir.const(0.0, _LANES), _LANES, 0)
            with ir.loop(parts) as part:
                value = ir.load(partial.out, _LANES, part, head, step * _LANES)
                value = value * ir.splat(weights[part], _LANES)
                ir.store(sums, ir.load(sums, _LANES, 0) + value, _LANES, 0)
            value = ir.to_dtype(ir.load(sums, _LANES, 0) * inverse, heads.dtype, _LANES)
            ir.store(out, value, _LANES, token, head, step * _LANES)
        ir.store(lse, highest[0] + T.log2(total[0]), 1, token, head)


def _lanes(rows: int) -> int:
    """Lanes of a vector with one score a row; those without a row repeat the last row's."""
    return 1 << (rows - 1).bit_length()


def _lane(vector: Expr, i: int, lanes: int) -> Expr:
    return T.Shuffle([vector], [i]) if lanes > 1 else vector


def _after(unseen: Expr, load: _Load) -> _Load:
    """`load` for a block without its first keys."""
    return lambda which, key, lanes, column: load(which, unseen + key, lanes, column)


def _sees(rows: _Rows) -> Callable[[Expr, Expr, Expr], Expr]:
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
    load: _Load,
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
        for column in range(0, heads.size, _LANES):
            k = T.bind(ir.to_f32(load(0, key, _LANES, column), heads.dtype, _LANES))
            for i in range(width):
                q = ir.load(query[i][column // _PIECE], _LANES, column % _PIECE)
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
        return ir.fold(sums[0], _LANES, ir.add)
    # Pairs of neighbours within each half, as AVX's horizontal add does it.
    even, odd = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]

    def pairwise(a: Expr, b: Expr) -> Expr:
        a, b = ir.hold(a, _LANES), ir.hold(b, _LANES)
        return T.Shuffle([a, b], even) + T.Shuffle([a, b], odd)

    halves = pairwise(sums[0], sums[1])
    if len(sums) == 2:
        halves = pairwise(halves, halves)
        low, high = [0, 1], [4, 5]
    else:
        halves = pairwise(halves, pairwise(sums[2], sums[3]))
        low, high = [0, 1, 2, 3], [4, 5, 6, 7]
    halves = ir.hold(halves, _LANES)
    return ir.hold(T.Shuffle([halves], low) + T.Shuffle([halves], high), len(sums))


def _softmax(score: Buffer, highest: Buffer, total: Buffer, width: int) -> Expr:
    """Turn a block's scores into weights; returns the factor for what was summed before."""
    values = [ir.load(score, width, key * width) for key in range(PAGE)]
    old = T.bind(ir.load(highest, width, 0))
    new = ir.hold(T.max(old, ir.tree(values, T.max)), width)
    keep = ir.exp2(old - new, width)
    ir.store(highest, new, width, 0)
    if width == 1:
        repeat = ir.splat(new, _LANES)
    else:
        repeat = ir.hold(T.Shuffle([new] * (_LANES // width), [*range(_LANES)]), _LANES)
    parts = []
    for at in range(0, PAGE * width, _LANES):
        weights = ir.exp2(ir.load(score, _LANES, at) - repeat, _LANES)
        ir.store(score, weights, _LANES, at)
        parts.append(weights)
    part = ir.fold(ir.tree(parts), _LANES, ir.add, to=width)
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
    while 2 * chunks * width <= _SUMS and heads.size % (2 * chunks * _LANES) == 0:
        chunks *= 2
    kept = [ir.hold(_lane(keep, i, lanes)) for i in range(width)]
    for piece, (start, n) in enumerate(_pieces(heads.size)):
        with ir.loop(n // (chunks * _LANES)) as step:
            columns = [(step * chunks + c) * _LANES for c in range(chunks)]
            sums = [[ir.stack(_LANES) for _ in columns] for _ in range(width)]
            for i in range(width):
                for one, column in zip(sums[i], columns, strict=True):
                    before = ir.load(result[i][piece], _LANES, column)
                    ir.store(one, before * ir.splat(kept[i], _LANES), _LANES, 0)
            with ir.loop(count) as key:
                weights = [T.bind(ir.splat(score[key * lanes + i], _LANES)) for i in range(width)]
                for c, column in enumerate(columns):
                    raw = load(1, key, _LANES, start + column)
                    value = T.bind(ir.to_f32(raw, heads.dtype, _LANES))
                    for i, weight in enumerate(weights):
                        new = ir.load(sums[i][c], _LANES, 0) + value * weight
                        ir.store(sums[i][c], new, _LANES, 0)
            for i in range(width):
                for one, column in zip(sums[i], columns, strict=True):
                    ir.store(result[i][piece], ir.load(one, _LANES, 0), _LANES, column)
