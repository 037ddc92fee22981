"""The KV cache's kernels in their simplest form: one work item a row and head, for CPU and GPU.

Every factory here gives a function of the same parameters as its namesake in `attention`,
`kv_pages` and `rotary`, with the same windows, soft caps and angles. `Items` says how the work
items run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels import rotary as angles
from harness.compiler.kernels.heads import PAGE, Heads
from harness.compiler.kernels.ir import LOG2_E, Buffer, Expr, PrimFunc, T

_LOWEST = -5e4
GROUP_ITEMS = 64
"""Work items of one GPU work group: every Adreno and Mali takes as many."""
_PIECE = 128
"""Floats of one buffer: more would not lie on a CPU's stack."""


class Items(Enum):
    """How the work items of a kernel run."""

    LOOP = "one after the other"
    GPU = "as a GPU's work items"

    def each(self, count: Expr, emit: Callable[[Expr], None]) -> None:
        """Emit the work of items 0..count-1; nothing else may be in the kernel."""
        if self is Items.LOOP:
            with ir.loop(count) as item:
                emit(item)
            return
        groups = (count + (GROUP_ITEMS - 1)) // GROUP_ITEMS
        group = T.launch_thread("blockIdx.x", groups)
        place = T.launch_thread("threadIdx.x", GROUP_ITEMS)
        with group as i, place as j:
            item = T.bind(i * GROUP_ITEMS + j)
            with T.If(item < count), T.Then():
                emit(item)

    def floats(self, size: int) -> Buffer:
        """An item's own memory, of at most `_PIECE` floats."""
        return T.alloc_buffer((size,), "float32", scope=self._scope)

    def variable(self, value: Expr, dtype: str) -> Buffer:
        """One variable of an item's own."""
        buffer = T.alloc_buffer((1,), dtype, scope=self._scope)
        T.buffer_store(buffer, value, [0])
        return buffer

    @property
    def _scope(self) -> str:
        # What is local to a CPU's loop comes from a heap, what is global from its stack.
        return "local" if self is Items.GPU else "global"


class _Row(NamedTuple):
    """One query row: where it lies, and which keys it sees."""

    token: Expr
    head: Expr
    first: Expr
    end: Expr


class _Scalars(NamedTuple):
    scale: Expr
    windowed: Expr


def decode(items: Items, heads: Heads) -> PrimFunc:
    """`attention.decode`."""
    heads.check()

    def emit() -> None:
        batch, entries, total = T.int32(), T.int32(), T.int32()
        q = ir.argument("q", (batch, heads.query, heads.size), heads.dtype)
        pages = ir.argument("pages", _pages_shape(heads, total), heads.dtype, view=True)
        indptr = ir.argument("page_indptr", (batch + 1,), "int32", view=True)
        values = ir.argument("page_values", (entries,), "int32", view=True)
        last = ir.argument("length_info", (batch,), "int32", view=True)
        key_positions = ir.argument("k_rope_pos_offset", (batch,), "int32", view=True)
        query_positions = ir.argument("q_rope_position", (batch,), "int32", view=True)
        out = ir.argument("output", (batch, heads.query, heads.size), heads.dtype)
        lse = ir.argument("lse", (batch, heads.query), "float32")
        scalars = _scalars()

        def item(index: Expr) -> None:
            token, head = index // heads.query, index % heads.query
            length = _length(items, indptr, last, token)
            first = _first(items, heads, scalars, query_positions, key_positions, token, token)
            row = _Row(token, head, first, length)
            load = _paged(heads, pages, values, indptr[token], head)
            _attend(items, heads, q, out, lse, scalars, row, load)

        items.each(batch * heads.query, item)

    return ir.function("attention_decode", emit)


def prefill_paged(items: Items, heads: Heads) -> PrimFunc:
    """`attention.prefill_paged`."""
    heads.check()

    def emit() -> None:
        batch, n, entries, total = T.int32(), T.int32(), T.int32(), T.int32()
        q = ir.argument("q", (n, heads.query, heads.size), heads.dtype)
        q_indptr = ir.argument("q_indptr", (batch + 1,), "int32", view=True)
        pages = ir.argument("pages", _pages_shape(heads, total), heads.dtype, view=True)
        indptr = ir.argument("page_indptr", (batch + 1,), "int32", view=True)
        values = ir.argument("page_values", (entries,), "int32", view=True)
        last = ir.argument("length_info", (batch,), "int32", view=True)
        key_positions = ir.argument("k_rope_pos_offset", (batch,), "int32", view=True)
        query_positions = ir.argument("q_rope_position", (n,), "int32", view=True)
        out = ir.argument("output", (n, heads.query, heads.size), heads.dtype)
        lse = ir.argument("lse", (n, heads.query), "float32")
        causal = T.arg("causal", T.int32())
        scalars = _scalars()

        def item(index: Expr) -> None:
            token, head = index // heads.query, index % heads.query
            sequence = _sequence(items, q_indptr, batch, token)
            length = _length(items, indptr, last, sequence)
            end = _end(items, q_indptr, sequence, token, length, causal)
            first = _first(items, heads, scalars, query_positions, key_positions, token, sequence)
            load = _paged(heads, pages, values, indptr[sequence], head)
            _attend(items, heads, q, out, lse, scalars, _Row(token, head, first, end), load)

        items.each(n * heads.query, item)

    return ir.function("attention_prefill_paged", emit)


def prefill_ragged(items: Items, heads: Heads) -> PrimFunc:
    """`attention.prefill_ragged`."""
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
        scalars = _scalars()

        def item(index: Expr) -> None:
            token, head = index // heads.query, index % heads.query
            sequence = _sequence(items, q_indptr, batch, token)
            length = kv_indptr[sequence + 1] - kv_indptr[sequence]
            end = _end(items, q_indptr, sequence, token, length, causal)
            first = _first(items, heads, scalars, query_positions, key_positions, token, sequence)

            def load(which: int, key: Expr, column: Expr) -> Expr:
                value = (k, v)[which][kv_indptr[sequence] + key, head // heads.group, column]
                return ir.to_f32(value, heads.dtype, 1)

            _attend(items, heads, q, out, lse, scalars, _Row(token, head, first, end), load)

        items.each(n * heads.query, item)

    return ir.function("attention_prefill_ragged", emit)


def split_rotary(items: Items, heads: Heads, frequencies: Sequence[float] | None) -> PrimFunc:
    """`kv_pages.split_rotary`."""
    if frequencies is None:
        heads.check()
    else:
        angles.check(heads, frequencies)

    def emit() -> None:
        n = T.int32()
        fused = heads.query + 2 * heads.key_value
        qkv = ir.argument("qkv", (n, fused, heads.size), heads.dtype)
        positions = ir.argument("position_map", (n,), "int32", view=True)
        q = ir.argument("q", (n, heads.query, heads.size), heads.dtype)
        k = ir.argument("k", (n, heads.key_value, heads.size), heads.dtype)
        v = ir.argument("v", (n, heads.key_value, heads.size), heads.dtype)
        apply_rope = T.arg("apply_rope", T.int64())

        def item(index: Expr) -> None:
            token, head = index // fused, index % fused
            position = T.Select(apply_rope > 0, positions[token], T.int32(0))

            def move(target: Buffer, at: Expr, turned: Sequence[float] | None) -> None:
                def load(column: Expr) -> Expr:
                    return ir.to_f32(qkv[token, head, column], heads.dtype, 1)

                def put(value: Expr, column: Expr) -> None:
                    T.buffer_store(target, ir.to_dtype(value, heads.dtype, 1), [token, at, column])

                _rotate(heads.size, turned or (), position, load, put)

            with T.If(head < heads.query):
                with T.Then():
                    move(q, head, frequencies)
                with T.Else(), T.If(head < heads.query + heads.key_value):
                    with T.Then():
                        move(k, head - heads.query, frequencies)
                    with T.Else():
                        move(v, head - heads.query - heads.key_value, None)

        items.each(n * fused, item)

    return ir.function("kv_split_rotary", emit)


def rotary(
    items: Items,
    heads: Heads,
    frequencies: Sequence[float],
    *,
    q_norm: bool,
    k_norm: bool,
    eps: float,
    tokens: int | None,
) -> PrimFunc:
    """`rotary.rotary`."""
    angles.check(heads, frequencies)

    def emit() -> None:
        n, size = ir.token_count(tokens), heads.size
        fused = heads.query + 2 * heads.key_value
        qkv = ir.argument("qkv", (n, fused, size), heads.dtype)
        positions = ir.argument("positions", (n,), "int32", view=True)
        q_weight = ir.argument("q_weight", (size,), "float32") if q_norm else None
        k_weight = ir.argument("k_weight", (size,), "float32") if k_norm else None
        out = ir.argument("out", (n, fused, size), heads.dtype)

        def item(index: Expr) -> None:
            token, head = index // fused, index % fused

            def load(column: Expr) -> Expr:
                return ir.to_f32(qkv[token, head, column], heads.dtype, 1)

            def put(value: Expr, column: Expr) -> None:
                T.buffer_store(out, ir.to_dtype(value, heads.dtype, 1), [token, head, column])

            def turn(weight: Buffer | None) -> None:
                values = load if weight is None else _normalised(items, load, weight, size, eps)
                _rotate(size, frequencies, positions[token], values, put)

            with T.If(head < heads.query):
                with T.Then():
                    turn(q_weight)
                with T.Else(), T.If(head < heads.query + heads.key_value):
                    with T.Then():
                        turn(k_weight)
                    with T.Else():
                        _rotate(size, (), positions[token], load, put)

        items.each(n * fused, item)

    return ir.function("rotary", emit)


def append(items: Items, heads: Heads) -> PrimFunc:
    """`kv_pages.append`."""
    heads.check()

    def emit() -> None:
        n, total = T.int64(), T.int64()
        pages = ir.argument("pages", _pages_shape(heads, total), heads.dtype, view=True)
        k = ir.argument("k", (n, heads.key_value, heads.size), heads.dtype)
        v = ir.argument("v", (n, heads.key_value, heads.size), heads.dtype)
        slots = ir.argument("position_map", (n,), "int32", view=True)

        def item(index: Expr) -> None:
            token, head = index // heads.key_value, index % heads.key_value
            slot = T.bind(slots[token])
            with T.If(slot >= 0), T.Then(), ir.loop(heads.size) as column:
                for which, source in enumerate((k, v)):
                    at = [slot // PAGE, which, head, slot % PAGE, column]
                    T.buffer_store(pages, source[token, head, column], at)

        items.each(n * heads.key_value, item)

    return ir.function("kv_append", emit)


def merge_state(items: Items, heads: Heads) -> PrimFunc:
    """`kv_pages.merge_state`."""
    heads.check()

    def emit() -> None:
        n = T.int32()
        out = ir.argument("v", (n, heads.query, heads.size), heads.dtype)
        lse = ir.argument("s", (n, heads.query), "float32")
        other = ir.argument("v_other", (n, heads.query, heads.size), heads.dtype)
        other_lse = ir.argument("s_other", (n, heads.query), "float32")

        def item(index: Expr) -> None:
            token, head = index // heads.query, index % heads.query
            a, b = T.bind(lse[token, head]), T.bind(other_lse[token, head])
            highest = T.bind(T.max(a, b))
            mine = items.variable(T.exp2(a - highest), "float32")
            others = items.variable(T.exp2(b - highest), "float32")
            total = items.variable(mine[0] + others[0], "float32")
            with ir.loop(heads.size) as column:
                values = [
                    ir.to_f32(one[token, head, column], heads.dtype, 1) for one in (out, other)
                ]
                merged = (values[0] * mine[0] + values[1] * others[0]) / total[0]
                T.buffer_store(out, ir.to_dtype(merged, heads.dtype, 1), [token, head, column])
            T.buffer_store(lse, T.log2(total[0]) + highest, [token, head])

        items.each(n * heads.query, item)

    return ir.function("attention_merge_state", emit)


def copy_page(items: Items, heads: Heads) -> PrimFunc:
    """`kv_pages.copy_page`."""
    heads.check()

    def emit() -> None:
        total = T.int32()
        pages = ir.argument("pages", _pages_shape(heads, total), heads.dtype, view=True)
        source = T.arg("src_page_id", T.int64())
        target = T.arg("tgt_page_id", T.int64())
        length = T.arg("copy_length", T.int64())

        def item(index: Expr) -> None:
            which, head = index // (heads.key_value * length), index // length % heads.key_value
            rest = [which, head, index % length]
            with ir.loop(heads.size) as column:
                T.buffer_store(pages, pages[(source, *rest, column)], [target, *rest, column])

        items.each(2 * heads.key_value * length, item)

    return ir.function("kv_copy_page", emit)


def _scalars() -> _Scalars:
    """Declare the last parameters of attention; the scale's sign says whether there is a window."""
    T.arg("rotary_mode", T.int32())
    T.arg("rope_scale", T.float32())
    T.arg("rope_theta", T.float32())
    scale = T.arg("sm_scale", T.float32())
    return _Scalars(T.abs(scale), scale < T.float32(0))


def _pages_shape(heads: Heads, total: Expr) -> tuple[Expr | int, ...]:
    return (total, 2, heads.key_value, PAGE, heads.size)


def _length(items: Items, indptr: Buffer, last: Buffer, sequence: Expr) -> Expr:
    pages = indptr[sequence + 1] - indptr[sequence]
    length = T.if_then_else(pages > 0, (pages - 1) * PAGE + last[sequence], T.int32(0))
    return items.variable(length, "int32")[0]


def _sequence(items: Items, indptr: Buffer, batch: Expr, token: Expr) -> Expr:
    """The sequence that a token belongs to."""
    found = items.variable(T.int32(0), "int32")
    with ir.loop(batch) as sequence, T.If(indptr[sequence] <= token), T.Then():
        # Of sequences without tokens the last one begins where the next, not empty, one does.
        T.buffer_store(found, sequence, [0])
    return found[0]


def _end(
    items: Items, indptr: Buffer, sequence: Expr, token: Expr, length: Expr, causal: Expr
) -> Expr:
    """How many of `length` keys a token sees: those up to its own if the kernel is causal."""
    later = indptr[sequence + 1] - 1 - token
    return items.variable(T.if_then_else(causal > 0, length - later, length), "int32")[0]


def _first(
    items: Items,
    heads: Heads,
    scalars: _Scalars,
    query_positions: Buffer,
    key_positions: Buffer,
    token: Expr,
    sequence: Expr,
) -> Expr:
    """The first key that a token's window holds."""
    if heads.window is None:
        return T.int32(0)
    passed = query_positions[token] - key_positions[sequence] - heads.window + 1
    first = T.if_then_else(scalars.windowed, T.max(passed, T.int32(0)), T.int32(0))
    return items.variable(first, "int32")[0]


def _paged(
    heads: Heads, pages: Buffer, values: Buffer, begin: Expr, head: Expr
) -> Callable[[int, Expr, Expr], Expr]:
    def load(which: int, key: Expr, column: Expr) -> Expr:
        at = (values[begin + key // PAGE], which, head // heads.group, key % PAGE, column)
        return ir.to_f32(pages[at], heads.dtype, 1)

    return load


def _attend(
    items: Items,
    heads: Heads,
    q: Buffer,
    out: Buffer,
    lse: Buffer,
    scalars: _Scalars,
    row: _Row,
    load: Callable[[int, Expr, Expr], Expr],
) -> None:
    """Emit one row's attention over its keys, with an online softmax in base 2."""
    pieces = [(at, min(_PIECE, heads.size - at)) for at in range(0, heads.size, _PIECE)]
    sums = [items.floats(size) for _, size in pieces]
    highest = items.variable(T.float32(_LOWEST), "float32")
    total = items.variable(T.float32(0), "float32")
    for buffer, (_, size) in zip(sums, pieces, strict=True):
        with ir.loop(size) as column:
            T.buffer_store(buffer, T.float32(0), [column])
    with ir.loop(T.max(row.end - row.first, T.int32(0))) as step:
        key = row.first + step
        product = items.variable(T.float32(0), "float32")
        with ir.loop(heads.size) as column:
            value = ir.to_f32(q[row.token, row.head, column], heads.dtype, 1)
            T.buffer_store(product, product[0] + value * load(0, key, column), [0])
        score = product[0] * scalars.scale
        if heads.softcap is not None:
            score = T.tanh(score / T.float32(heads.softcap)) * T.float32(heads.softcap)
        score = items.variable(score * T.float32(LOG2_E), "float32")[0]
        old = items.variable(highest[0], "float32")[0]
        T.buffer_store(highest, T.max(old, score), [0])
        keep = items.variable(T.exp2(old - highest[0]), "float32")[0]
        weight = items.variable(T.exp2(score - highest[0]), "float32")[0]
        T.buffer_store(total, total[0] * keep + weight, [0])
        for buffer, (at, size) in zip(sums, pieces, strict=True):
            with ir.loop(size) as column:
                new = buffer[column] * keep + load(1, key, at + column) * weight
                T.buffer_store(buffer, new, [column])
    T.buffer_store(total, T.max(total[0], T.float32(1e-37)), [0])
    for buffer, (at, size) in zip(sums, pieces, strict=True):
        with ir.loop(size) as column:
            value = ir.to_dtype(buffer[column] / total[0], heads.dtype, 1)
            T.buffer_store(out, value, [row.token, row.head, at + column])
    T.buffer_store(lse, highest[0] + T.log2(total[0]), [row.token, row.head])


def _rotate(
    size: int,
    frequencies: Sequence[float],
    position: Expr,
    load: Callable[[Expr], Expr],
    put: Callable[[Expr, Expr], None],
) -> None:
    """Emit one head's rotation: the pairs (i, i + r) of its first 2*r elements, the rest as it is.

    Angles are exact as `rotary` has them: whole turns drop out of a 64-bit product.
    """
    half = len(frequencies)
    for column, frequency in enumerate(frequencies):
        rate = T.uint64(angles.rate(frequency))
        turns = T.shift_right(T.Cast("uint64", position) * rate, T.uint64(angles.TURN_BITS - 32))
        rest = T.Cast("float32", T.reinterpret("int32", T.Cast("uint32", turns)))
        angle = rest * T.float32(math.tau / 2**32)
        a, b = load(column), load(column + half)
        put(a * T.cos(angle) - b * T.sin(angle), column)
        put(b * T.cos(angle) + a * T.sin(angle), column + half)
    with ir.loop(size - 2 * half) as column:
        put(load(2 * half + column), 2 * half + column)


def _normalised(
    items: Items, load: Callable[[Expr], Expr], weight: Buffer, size: int, eps: float
) -> Callable[[Expr], Expr]:
    """`load` for a head divided by its root mean square and multiplied with a weight."""
    squares = items.variable(T.float32(0), "float32")
    with ir.loop(size) as column:
        T.buffer_store(squares, squares[0] + load(column) * load(column), [0])
    mean = squares[0] / T.float32(size)
    factor = items.variable(T.float32(1) / T.sqrt(mean + T.float32(eps)), "float32")
    return lambda column: load(column) * factor[0] * weight[column]
