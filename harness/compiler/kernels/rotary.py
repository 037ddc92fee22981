"""Rotary position embedding with angles that stay exact at any position.

An angle is position * frequency, and in float32 that is wrong by thousandths of a radian at
position 131,072. Here a frequency is an integer, in 2^-60 turns a position: its 64-bit product
with the position wraps after whole turns, and what is left is the angle within its turn. For
frequencies up to 1 it is off by less than 2^-32 turns, which are cut off, and position * 2^-55
turns, from the double arithmetic that makes the integer: 5e-9 radians at any position below 2^24.
Sine and cosine of an eighth of a turn are Taylor polynomials, right within 2^-22; nothing comes
from the C library.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.compiler.kernels import ir
from harness.compiler.kernels.heads import LANES, Heads
from harness.compiler.kernels.ir import Buffer, Expr, PrimFunc, T

TURN_BITS = 60
"""A frequency is an integer in 2^-60 turns a position."""
_EIGHTH = 1 << 29
"""An eighth of a turn, where a whole one is 2^32."""

_SINE = tuple((-1) ** i / math.factorial(2 * i + 1) for i in range(5))
"""x - x^3/6 ...: the first missing term is below 2e-9 for |x| <= pi/4."""
_COSINE = tuple((-1) ** i / math.factorial(2 * i) for i in range(6))
"""1 - x^2/2 ...: the first missing term is below 2e-10."""


class Turn(NamedTuple):
    """Cosine and sine of one position's angles, one a rotated pair."""

    cos: Buffer
    sin: Buffer


def check(heads: Heads, frequencies: Sequence[float]) -> None:
    """Raise ValueError unless these frequencies can rotate these heads.

    The pairs must be a multiple of 8 and twice as many fit the head; a position turns each by less
    than a half turn.
    """
    heads.check()
    half = len(frequencies)
    if half % LANES or not 0 < 2 * half <= heads.size:
        raise ValueError(f"{half} rotated pairs do not fit a head of {heads.size}")
    if not all(0 <= frequency < math.pi for frequency in frequencies):
        raise ValueError("a frequency is not within a half turn a position")


def rotary(
    heads: Heads,
    frequencies: Sequence[float],
    *,
    q_norm: bool,
    k_norm: bool,
    eps: float,
    tokens: int | None,
) -> PrimFunc:
    """Normalise and rotate the q and k heads of fused q, k, v rows; v is copied.

    For layers that the cache's own `split_rotary` does not serve: another base in windowed layers,
    RMS norms of each head before the rotation (Gemma 3, Qwen 3). The parameters are (qkv
    dtype[n, query + 2 * key_value, size], positions i32[n], [q_weight f32[size]], [k_weight
    f32[size]]; out, like qkv), a weight where its norm is asked for. `frequencies` as
    `kv_pages.split_rotary` has them. Arithmetic is float32, rounded once to `heads.dtype`. Raises
    ValueError for frequencies that do not fit the heads.
    """
    check(heads, frequencies)

    def emit() -> None:
        n, size = ir.token_count(tokens), heads.size
        shape = (n, heads.query + 2 * heads.key_value, size)
        qkv = ir.argument("qkv", shape, heads.dtype)
        positions = ir.argument("positions", (n,), "int32", view=True)
        q_weight = ir.argument("q_weight", (size,), "float32") if q_norm else None
        k_weight = ir.argument("k_weight", (size,), "float32") if k_norm else None
        out = ir.argument("out", shape, heads.dtype)

        with ir.loop(n, parallel=tokens is None) as token:
            turn = emit_turn(positions[token], frequencies)

            def load(head: Expr, column: Expr) -> Expr:
                return ir.to_f32(ir.load(qkv, LANES, token, head, column), heads.dtype, LANES)

            def rotate(head: Expr, weight: Buffer | None) -> None:
                plain = functools.partial(load, head)
                values = plain if weight is None else _normalised(plain, weight, size, eps)

                def put(value: Expr, column: Expr) -> None:
                    value = ir.to_dtype(value, heads.dtype, LANES)
                    ir.store(out, value, LANES, token, head, column)

                emit_rotation(turn, size, values, put)

            with ir.loop(heads.query) as head:
                rotate(head, q_weight)
            with ir.loop(heads.key_value) as head:
                rotate(heads.query + head, k_weight)
                value_head = heads.query + heads.key_value + head
                with ir.loop(size // LANES) as step:
                    at = (token, value_head, step * LANES)
                    ir.store(out, ir.load(qkv, LANES, *at), LANES, *at)

    return ir.function("rotary", emit)


def rate(frequency: float) -> int:
    """A frequency in radians a position, in 2^-60 turns."""
    return round(frequency / math.tau * (1 << TURN_BITS))


def emit_turn(position: Expr, frequencies: Sequence[float]) -> Turn:
    """Emit the cosines and sines of `position` times each frequency."""
    turn = Turn(ir.stack(len(frequencies)), ir.stack(len(frequencies)))
    place = ir.hold(T.Cast("uint64", position), 1, "uint64")
    for at in range(0, len(frequencies), LANES):
        rates = [T.uint64(rate(frequency)) for frequency in frequencies[at : at + LANES]]
        product = ir.splat(place, LANES) * T.Shuffle(rates, [*range(LANES)])
        shift = ir.splat(T.uint64(TURN_BITS - 32), LANES)
        angle = ir.hold(T.Cast("uint32x8", T.shift_right(product, shift)), LANES, "uint32")
        cos, sin = _cos_sin(angle)
        ir.store(turn.cos, cos, LANES, at)
        ir.store(turn.sin, sin, LANES, at)
    return turn


def emit_rotation(
    turn: Turn,
    size: int,
    load: Callable[[Expr], Expr],
    put: Callable[[Expr, Expr], None],
) -> None:
    """Emit one head's rotation: the pairs (i, i + r) of its first 2*r elements, the rest as it is.

    `load(column)` gives eight float32 elements, `put(value, column)` takes them.
    """
    half = int(turn.cos.shape[0])
    with ir.loop(half // LANES) as step:
        column = step * LANES
        a, b = (ir.hold(load(at), LANES) for at in (column, column + half))
        cos, sin = (ir.load(one, LANES, column) for one in turn)
        put(a * cos - b * sin, column)
        put(b * cos + a * sin, column + half)
    with ir.loop((size - 2 * half) // LANES) as step:
        column = 2 * half + step * LANES
        put(load(column), column)


def _cos_sin(angle: Expr) -> tuple[Expr, Expr]:
    """Cosine and sine of eight angles in 2^-32 turns."""

    def const(value: int) -> Expr:
        return ir.splat(T.uint32(value), LANES)

    quarter = ir.hold(T.shift_right(angle + const(_EIGHTH), const(30)), LANES, "uint32")
    rest = T.Cast("int32x8", angle - T.shift_left(quarter, const(30)))
    x = ir.hold(T.Cast("float32x8", rest) * ir.const(math.tau / 2**32, LANES), LANES)
    square = ir.hold(x * x, LANES)
    cosine = ir.hold(_polynomial(_COSINE, square), LANES)
    sine = ir.hold(_polynomial(_SINE, square) * x, LANES)

    def bit(value: Expr, mask: int) -> Expr:
        return T.bitwise_and(value, const(mask)) > const(0)

    odd = bit(quarter, 1)
    cos, sin = T.Select(odd, sine, cosine), T.Select(odd, cosine, sine)
    return (
        T.Select(bit(quarter + const(1), 2), -cos, cos),
        T.Select(bit(quarter, 2), -sin, sin),
    )


def _polynomial(terms: Sequence[float], x: Expr) -> Expr:
    value = ir.const(terms[-1], LANES)
    for term in reversed(terms[:-1]):
        value = value * x + ir.const(term, LANES)
    return value


def _normalised(
    load: Callable[[Expr], Expr], weight: Buffer, size: int, eps: float
) -> Callable[[Expr], Expr]:
    """`load` for a head divided by its root mean square and multiplied with a weight."""
    squares = ir.stack(LANES)
    ir.store(squares, ir.const(0.0, LANES), LANES, 0)
    with ir.loop(size // LANES) as step:
        values = T.bind(load(step * LANES))
        ir.store(squares, ir.load(squares, LANES, 0) + values * values, LANES, 0)
    mean = ir.fold(ir.load(squares, LANES, 0), LANES, ir.add) / T.float32(size)
    factor = ir.hold(T.float32(1.0) / T.sqrt(mean + T.float32(eps)))
    return lambda column: load(column) * ir.splat(factor, LANES) * ir.load(weight, LANES, column)
