"""Short words for writing vector kernels with TVM's IR builder.

The kernels are written with the builder and not as TVMScript text, so that plain Python unrolls
tiles and picks lanes: one source serves every instruction set. A statement is emitted where it is
called; an expression is emitted wherever it is used. `T.bind` names what reads memory; TVM's
simplifier undoes it for a pure expression, so what is used more than once is put on `hold`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import IRBuilder, tirx
from tvm.target import Target

from harness.compiler.kernels import halves

T: Any = tirx
"""The builder's words, by the name that TVM gives them everywhere."""

Expr = Any
Buffer = Any
PrimFunc = Any

STACK_BYTES = 1016
"""The largest buffer that TVM keeps on the stack; a larger one is allocated at every use."""


def function(name: str, emit: Callable[[], None]) -> PrimFunc:
    """The PrimFunc whose parameters and statements `emit` declares.

    It is marked as scheduled and opaque, so that Relax's passes leave it as it is, and with the
    processor that it is for.
    """
    with IRBuilder() as builder, T.prim_func(private=True):
        T.func_name(name)
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "op_pattern": 8})
        emit()
    return for_processor(builder.get())


def for_processor(function: PrimFunc) -> PrimFunc:
    """A function that bears the current target, if a processor's: it is what it is built for."""
    target = Target.current(allow_none=True)
    if target is None or target.kind.name != "llvm":
        return function
    return function.with_attr("target", target)


def token_count(tokens: int | None) -> Expr:
    """The number of tokens as a shape takes it: fixed, or a new symbolic size for None."""
    return T.int64() if tokens is None else tokens


def argument(name: str, shape: tuple[Any, ...], dtype: str, *, view: bool = False) -> Buffer:
    """Declare a tensor parameter; `view` admits one that starts inside its allocation."""
    offset = {"elem_offset": T.int32()} if view else {}
    return T.arg(name, T.buffer(shape, dtype, **offset))


def stack(size: int, dtype: str = "float32") -> Buffer:
    """A buffer on the stack, of at most `STACK_BYTES`."""
    width = int("".join(c for c in dtype if c.isdigit())) // 8
    if size * width > STACK_BYTES:
        raise ValueError(f"{size} x {dtype} does not fit the stack")
    return T.alloc_buffer((size,), dtype)


def hold(value: Expr, lanes: int = 1, dtype: str = "float32") -> Expr:
    """An expression computed here, once: LLVM makes a register of its place on the stack."""
    buffer = stack(lanes, dtype)
    store(buffer, value, lanes, 0)
    return load(buffer, lanes, 0)


def index(value: Expr) -> Expr:
    """A 32-bit integer on `hold`."""
    return hold(value, 1, "int32")


def load(buffer: Buffer, lanes: int, *at: Any) -> Expr:
    """`lanes` neighbours of the last dimension, beginning at `at`."""
    if lanes == 1:
        return buffer[at]
    return buffer[(*at[:-1], T.ramp(at[-1], 1, lanes))]


def store(buffer: Buffer, value: Expr, lanes: int, *at: Any) -> None:
    """Store a vector of `lanes` neighbours of the last dimension, beginning at `at`."""
    last = at[-1] if lanes == 1 else T.ramp(at[-1], 1, lanes)
    T.buffer_store(buffer, value, [*at[:-1], last])


def prefetch(buffer: Buffer, *at: Any) -> None:
    """Ask for the cache line of an element, which may lie outside the buffer."""
    address = T.address_of(buffer[at])
    read, keep, data = T.int32(0), T.int32(3), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", address, read, keep, data))


def splat(value: Expr, lanes: int) -> Expr:
    """One value in every lane."""
    return value if lanes == 1 else T.Broadcast(value, lanes)


def const(value: float, lanes: int) -> Expr:
    """A float32 constant in every lane."""
    return splat(T.float32(value), lanes)


def to_f32(value: Expr, dtype: str, lanes: int) -> Expr:
    """A vector as float32; one of "bfloat16" comes as its bits in uint16."""
    if dtype == "bfloat16":
        bits = T.Cast(vector("uint32", lanes), value)
        bits = T.shift_left(bits, splat(T.uint32(16), lanes))
        return T.reinterpret(vector("float32", lanes), bits)
    if dtype == "float16" and not halves.are_converted_by_processor():
        return halves.to_f32(value, lanes)
    return value if dtype == "float32" else T.Cast(vector("float32", lanes), value)


def to_dtype(value: Expr, dtype: str, lanes: int) -> Expr:
    """A float32 vector as another type; rounds to nearest, ties to even."""
    if dtype == "float16" and not halves.are_converted_by_processor():
        return halves.of_f32(value, lanes)
    return value if dtype == "float32" else T.Cast(vector(dtype, lanes), value)


def vector(dtype: str, lanes: int) -> str:
    """The name of a vector type."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def fold(value: Expr, lanes: int, combine: Callable[[Expr, Expr], Expr], *, to: int = 1) -> Expr:
    """Combine the lanes (a power of two) of a float32 vector into `to`, halving it each time."""
    value = hold(value, lanes)
    while lanes > to:
        lanes //= 2
        low = T.Shuffle([value], list(range(lanes)))
        high = T.Shuffle([value], list(range(lanes, 2 * lanes)))
        value = hold(combine(low, high), lanes)
    return value


def add(a: Expr, b: Expr) -> Expr:
    return a + b


def tree(values: list[Expr], combine: Callable[[Expr, Expr], Expr] = add) -> Expr:
    """Combine expressions pair by pair."""
    while len(values) > 1:
        pairs = [combine(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[2 * len(pairs) :]
    return values[0]


@contextmanager
def loop(count: Any, *, parallel: bool = False) -> Iterator[Expr]:
    """Emit a loop over 0..count-1; a parallel one hands each thread one run of iterations."""
    with T.parallel(0, count) if parallel else T.serial(0, count) as i:
        yield i


def tiles(tokens: int | None, n: Expr, size: int, emit: Callable[[Expr, int], None]) -> None:
    """Emit `emit(first token, tokens)` for whole tiles of `size` tokens, then for single ones."""
    if tokens == 1:
        emit(0, 1)
        return
    with loop(n // size) as tile:
        emit(tile * size, size)
    with loop(n % size) as rest:
        emit(n - n % size + rest, 1)


def exp2(x: Expr, lanes: int) -> Expr:
    """2 to the power of a float32 vector; the argument is clamped to [-126, 126].

    x = i + f with an integer i and f in [-0.5, 0.5]: 2^i goes straight into the exponent bits,
    2^f is the Taylor polynomial of degree 7, whose first missing term is below 2e-9.
    """
    whole, rest = _split(x, lanes)
    power = _polynomial(_EXP2_TERMS, rest, lanes)
    return hold(power * _whole_power(whole, lanes), lanes)


def exp2m1(x: Expr, lanes: int) -> Expr:
    """2^x - 1 as `exp2` has it, but to float32's relative precision near 0 too.

    2^i (2^f - 1) + (2^i - 1), with the polynomial's 1 left out of 2^f - 1.
    """
    whole, rest = _split(x, lanes)
    less_one = rest * _polynomial(_EXP2_TERMS[1:], rest, lanes)
    scale = hold(_whole_power(whole, lanes), lanes)
    return hold(less_one * scale + (scale - const(1.0, lanes)), lanes)


def tanh(x: Expr, lanes: int) -> Expr:
    """The hyperbolic tangent of a float32 vector: (e^2x - 1) / (e^2x - 1 + 2)."""
    grown = exp2m1(x * const(2 * LOG2_E, lanes), lanes)
    return grown / (grown + const(2.0, lanes))


LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634


def _exp2_terms() -> tuple[float, ...]:
    terms = [1.0]
    for i in range(1, 8):
        terms.append(terms[-1] * LN2 / i)
    return tuple(terms)


_EXP2_TERMS = _exp2_terms()


def _split(x: Expr, lanes: int) -> tuple[Expr, Expr]:
    """The nearest integer to x, which is clamped to [-126, 126], and what is left."""
    x = hold(T.max(T.min(x, const(126.0, lanes)), const(-126.0, lanes)), lanes)
    whole = hold(T.nearbyint(x), lanes)
    return whole, hold(x - whole, lanes)


def _polynomial(terms: tuple[float, ...], x: Expr, lanes: int) -> Expr:
    value = const(terms[-1], lanes)
    for term in reversed(terms[:-1]):
        value = value * x + const(term, lanes)
    return value


def _whole_power(whole: Expr, lanes: int) -> Expr:
    """2 to the power of whole numbers of -126..127."""
    bits = T.Cast(vector("int32", lanes), whole) + splat(T.int32(127), lanes)
    bits = T.shift_left(bits, splat(T.int32(23), lanes))
    return T.reinterpret(vector("float32", lanes), bits)
