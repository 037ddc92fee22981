"""What goes into the paged KV cache and moves inside it: RoPE, append, merge, page copy.

The signatures are those with which TVM's runtime calls them (`src/runtime/vm/paged_kv_cache.cc`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.compiler.kernels import ir, rotary
from harness.compiler.kernels.heads import LANES, PAGE, Heads
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T

_PARALLEL_TOKENS = 8


def split_rotary(heads: Heads, frequencies: Sequence[float] | None) -> PrimFunc:
    """Split fused q, k, v rows and rotate q and k by their positions.

    `frequencies` are the angles a position, in radians, of the pairs (i, i + r) of a head's first
    2*r elements (the half-rotation form of Hugging Face's Llama); a scaling is in them already.
    None only splits. Raises ValueError as `rotary.check` does.
    """
    if frequencies is None:
        heads.check()
    else:
        rotary.check(heads, frequencies)

    def emit() -> None:
        n = T.int32()
        fused = heads.query + 2 * heads.key_value
        qkv = ir.argument("qkv", (n, fused, heads.size), heads.dtype)
        positions = ir.argument("position_map", (n,), "int32", view=True)
        q = ir.argument("q", (n, heads.query, heads.size), heads.dtype)
        k = ir.argument("k", (n, heads.key_value, heads.size), heads.dtype)
        v = ir.argument("v", (n, heads.key_value, heads.size), heads.dtype)
        apply_rope = T.arg("apply_rope", T.int64())

        def move(
            index: Expr, source: Expr, target: Buffer, head: Expr, turn: rotary.Turn | None
        ) -> None:
            def load(column: Expr) -> Expr:
                raw = ir.load(qkv, LANES, index, source, column)
                return ir.to_f32(raw, heads.dtype, LANES)

            def put(value: Expr, column: Expr) -> None:
                value = ir.to_dtype(value, heads.dtype, LANES)
                ir.store(target, value, LANES, index, head, column)

            if turn is None:
                _copy(qkv, (index, source), target, (index, head), heads.size)
            else:
                rotary.emit_rotation(turn, heads.size, load, put)

        def token(index: Expr) -> None:
            turn = None
            if frequencies is not None:
                # Where the runtime wants no rotation every angle is 0.
                position = T.Select(apply_rope > 0, positions[index], T.int32(0))
                turn = rotary.emit_turn(position, frequencies)
            with ir.loop(heads.query) as head:
                move(index, head, q, head, turn)
            with ir.loop(heads.key_value) as head:
                move(index, heads.query + head, k, head, turn)
                move(index, heads.query + heads.key_value + head, v, head, None)

        _each_token(n, token)

    return ir.function("kv_split_rotary", emit)


def append(heads: Heads) -> PrimFunc:
    """Write the new keys and values to their slots; a slot of -1 is left out."""
    heads.check()

    def emit() -> None:
        n, total = T.int64(), T.int64()
        pages = ir.argument(
            "pages", (total, 2, heads.key_value, PAGE, heads.size), heads.dtype, view=True
        )
        k = ir.argument("k", (n, heads.key_value, heads.size), heads.dtype)
        v = ir.argument("v", (n, heads.key_value, heads.size), heads.dtype)
        slots = ir.argument("position_map", (n,), "int32", view=True)

        def token(index: Expr) -> None:
            slot = T.bind(slots[index])
            with T.If(slot >= 0), T.Then(), ir.loop(heads.key_value) as head:
                for which, source in enumerate((k, v)):
                    at = (slot // PAGE, which, head, slot % PAGE)
                    _copy(source, (index, head), pages, at, heads.size)

        _each_token(n, token)

    return ir.function("kv_append", emit)


def merge_state(heads: Heads) -> PrimFunc:
    """Merge two attention results over disjoint keys, weighted by their lse, into the first."""
    heads.check()

    def emit() -> None:
        n = T.int32()
        out = ir.argument("v", (n, heads.query, heads.size), heads.dtype)
        lse = ir.argument("s", (n, heads.query), "float32")
        other = ir.argument("v_other", (n, heads.query, heads.size), heads.dtype)
        other_lse = ir.argument("s_other", (n, heads.query), "float32")

        def token(index: Expr) -> None:
            with ir.loop(heads.query) as head:
                a, b = T.bind(lse[index, head]), T.bind(other_lse[index, head])
                highest = T.bind(T.max(a, b))
                a, b = ir.exp2(a - highest, 1), ir.exp2(b - highest, 1)
                total = ir.hold(a + b)
                mine, others = ir.hold(a / total), ir.hold(b / total)
                with ir.loop(heads.size // LANES) as step:
                    column = step * LANES
                    values = [
                        ir.to_f32(ir.load(one, LANES, index, head, column), heads.dtype, LANES)
                        for one in (out, other)
                    ]
                    merged = values[0] * ir.splat(mine, LANES)
                    merged = merged + values[1] * ir.splat(others, LANES)
                    merged = ir.to_dtype(merged, heads.dtype, LANES)
                    ir.store(out, merged, LANES, index, head, column)
                ir.store(lse, T.log2(total) + highest, 1, index, head)

        _each_token(n, token)

    return ir.function("attention_merge_state", emit)


def copy_page(heads: Heads) -> PrimFunc:
    """Copy the first `length` slots of one page to another."""
    heads.check()

    def emit() -> None:
        total = T.int32()
        pages = ir.argument("pages", (total, 2, heads.key_value, PAGE, heads.size), heads.dtype)
        source = T.arg("src_page_id", T.int64())
        target = T.arg("tgt_page_id", T.int64())
        length = T.arg("copy_length", T.int64())
        with ir.loop(2) as which, ir.loop(heads.key_value) as head, ir.loop(length) as slot:
            rest = (which, head, slot)
            _copy(pages, (source, *rest), pages, (target, *rest), heads.size)

    return ir.function("kv_copy_page", emit)


def _copy(
    source: Buffer,
    source_at: tuple[Expr, ...],
    target: Buffer,
    target_at: tuple[Expr, ...],
    size: int,
) -> None:
    with ir.loop(size // LANES) as step:
        column = step * LANES
        value = ir.load(source, LANES, *source_at, column)
        ir.store(target, value, LANES, *target_at, column)


def _each_token(n: Expr, emit: Callable[[Expr], None]) -> None:
    with T.If(n >= _PARALLEL_TOKENS):
        with T.Then(), ir.loop(n, parallel=True) as index:
            emit(index)
        with T.Else(), ir.loop(n) as index:
            emit(index)
