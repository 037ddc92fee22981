"""Attention for the paged KV cache: decode, prefill over pages, prefill over the new tokens.

The signatures are those with which TVM's runtime calls them (`src/runtime/vm/attn_backend.h`,
class TIRPagedPrefillFunc and its neighbours). q, k, v, the pages and the output have one type,
float16 or float32, as the runtime demands; all arithmetic is float32.

The work is cut into tiles (`attention_tile`) of up to four query rows that share a key/value head:
heads of one group, tokens, or both.

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

from collections.abc import Callable
from typing import NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels.attention_tile import (
    ROWS,
    Keys,
    Load,
    Output,
    Part,
    Rows,
    attend,
)
from harness.compiler.kernels.heads import LANES, NO_WINDOW, PAGE, Heads
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T

_PARALLEL_KEYS = 256
"""One token's attention over fewer keys is over before a second thread has woken up."""
_PARTS = 8
"""The most parts that one token's keys are cut into, of `_PARALLEL_KEYS` keys at least."""


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
        output = Output(q, partial, partial_lse, scale)
        tiles = -(-heads.group // ROWS)
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
                rows = Rows(
                    [sequence] * width,
                    [ir.index(head * heads.group + i) for i in inside],
                    [length] * width,
                    None if skip is None else [skip] * width,
                    Part(part, parts),
                )
                keys = _paged(heads, pages, values, begin, head, once=True)
                attend(heads, output, rows, keys, masked=False)

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
        output = Output(q, out, lse, scale)

        with ir.loop(batch) as sequence:
            begin = ir.index(indptr[sequence])
            length = ir.index(_length(indptr, last, sequence))

            def keys(head: Expr) -> Keys:
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
        output = Output(q, out, lse, scale)

        with ir.loop(batch) as sequence:
            begin = ir.index(kv_indptr[sequence])
            length = ir.index(kv_indptr[sequence + 1] - begin)

            def keys(head: Expr) -> Keys:
                def start_block(block: Expr) -> Load:
                    first = ir.index(begin + block * PAGE)
                    return lambda which, key, lanes, column: ir.load(
                        (k, v)[which], lanes, first + key, head, column
                    )

                return Keys(start_block)

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
    size = T.Select(scale < 0, T.int32(heads.window), T.int32(NO_WINDOW))
    return ir.hold(T.abs(scale)), _Window(ir.index(size), query_positions, key_positions)


def _pages_shape(heads: Heads, total: Expr) -> tuple[Expr | int, ...]:
    return (total, 2, heads.key_value, PAGE, heads.size)


def _length(indptr: Buffer, last: Buffer, sequence: Expr) -> Expr:
    """Keys in a sequence's pages: all are full but the last."""
    pages = indptr[sequence + 1] - indptr[sequence]
    return T.if_then_else(pages > 0, (pages - 1) * PAGE + last[sequence], T.int32(0))


def _paged(
    heads: Heads, pages: Buffer, values: Buffer, begin: Expr, head: Expr, *, once: bool = False
) -> Keys:
    """The keys of a sequence's pages; `once` says that nobody else reads them."""

    def start_block(block: Expr) -> Load:
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

    return Keys(start_block, ask if once else None)


def _tasks(count: Expr, worth_threads: Expr, emit: Callable[[Expr], None]) -> None:
    with T.If(worth_threads):
        with T.Then(), ir.loop(count, parallel=True) as task:
            emit(task)
        with T.Else(), ir.loop(count) as task:
            emit(task)


def _prefill(
    heads: Heads,
    output: Output,
    window: _Window | None,
    q_indptr: Buffer,
    sequence: Expr,
    length: Expr,
    causal: Expr,
    keys: Callable[[Expr], Keys],
) -> None:
    width = ROWS
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
        rows = Rows(
            [ir.index(q_begin + i) for i in inside],
            [ir.index(head * heads.group + i % heads.group) for i in flat],
            [ir.index(T.if_then_else(causal > 0, length - tokens + i + 1, length)) for i in inside],
            window and [window.skip(sequence, q_begin + i, length) for i in inside],
        )
        attend(heads, output, rows, keys(head), masked=True)

    seen = T.min(length, window.size) if window else length
    _tasks(heads.key_value * tiles, tokens * seen >= 4 * _PARALLEL_KEYS, tile)


def _merge(
    heads: Heads, partial: Output, parts: Expr, out: Buffer, lse: Buffer, token: Expr
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
        inverse = ir.splat(ir.hold(T.float32(1.0) / total[0]), LANES)
        with ir.loop(heads.size // LANES) as step:
            sums = ir.stack(LANES)
            ir.store(sums, ir.const(0.0, LANES), LANES, 0)
            with ir.loop(parts) as part:
                value = ir.load(partial.out, LANES, part, head, step * LANES)
                value = value * ir.splat(weights[part], LANES)
                ir.store(sums, ir.load(sums, LANES, 0) + value, LANES, 0)
            value = ir.to_dtype(ir.load(sums, LANES, 0) * inverse, heads.dtype, LANES)
            ir.store(out, value, LANES, token, head, step * LANES)
        ir.store(lse, highest[0] + T.log2(total[0]), 1, token, head)
