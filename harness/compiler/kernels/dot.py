"""Integer dot products of packed weights with int8 activations: all that is written per ISA.

Four neighbouring columns of several rows fill one register (one 32-bit lane a row): a "quad". The
quads of a step meet the step's words of activations, each in every lane.
"""

from __future__ import annotations

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import Buffer, Expr, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import ROWS, WeightFormat


def quads(
    fmt: WeightFormat, lanes: int, words: Buffer, block: Expr, step: Expr, at: Expr
) -> list[Expr]:
    """The quads of one step for rows `at`.. of a block, in order, as int8 in registers."""
    width = 4 * lanes
    stored = "int8" if fmt.bits == 8 else "uint8"
    columns = [
        T.bind(
            T.reinterpret(f"{stored}x{width}", ir.load(words, lanes, block, step, at + word * ROWS))
        )
        for word in range(fmt.words)
    ]
    if fmt.bits == 8:
        return columns

    def masked(value: Expr, mask: int) -> Expr:
        return T.bitwise_and(value, ir.splat(T.uint8(mask), width))

    def right(value: Expr, bits: int) -> Expr:
        return T.shift_right(value, ir.splat(T.uint8(bits), width))

    if fmt.bits == 4:
        found = [half for pair in columns for half in (masked(pair, 15), right(pair, 4))]
    else:
        found = [part for pair in columns for part in (masked(pair, 7), masked(right(pair, 3), 7))]
        for low, high in (columns[:2], columns[2:]):
            found.append(T.bitwise_or(right(low, 6), masked(right(high, 4), 4)))
    return [T.bind(T.reinterpret(f"int8x{width}", quad)) for quad in found]


def spread(isa: Isa, q: Buffer, token: Expr, first: Expr, count: int) -> list[Expr]:
    """`count` words of a token's activations from word `first`, each in every lane, as bytes."""
    width = 4 * isa.lanes
    if isa is Isa.ARMV8_2_DOTPROD:
        # From whole registers, so that `sdot` takes the word by its lane.
        words = []
        for at in range(0, count, 4):
            start = min(at, count - 4)
            four = T.bind(ir.load(q, 4, token, first + start))
            words += [T.Shuffle([four], [lane] * 4) for lane in range(at - start, 4)]
    else:
        words = [ir.splat(q[token, first + i], isa.lanes) for i in range(count)]
    return [T.reinterpret(f"int8x{width}", word) for word in words]


def dot(isa: Isa, fmt: WeightFormat, weights: list[Expr], values: list[Expr]) -> Expr:
    """The sums over a step's columns, exact, as one int32 lane a row."""
    if isa is Isa.ARMV8_2_DOTPROD:
        total = ir.splat(T.int32(0), 4)
        for w, x in zip(weights, values, strict=True):
            total = T.call_llvm_pure_intrin(
                "int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", total, w, x
            )
        return total
    if fmt.bits == 8:
        # The instruction multiplies unsigned by signed bytes and saturates pairs at 32767: with
        # |w| <= 128 on the one side and +-x, |x| <= 127, on the other a pair is at most 32512.
        return ir.tree(
            [_pairs(_multiply(_sign(w, w), _sign(x, w))) for w, x in _zip(weights, values)]
        )
    # A nibble is at most 15, so eight pairs are at most 8 * 2 * 15 * 127 = 30480; ten pairs of
    # 3-bit values are at most 10 * 2 * 7 * 127 = 17780.
    return _pairs(ir.tree([_multiply(w, x) for w, x in _zip(weights, values)]))


def _zip(weights: list[Expr], values: list[Expr]) -> list[tuple[Expr, Expr]]:
    return list(zip(weights, values, strict=True))


def _multiply(unsigned: Expr, signed: Expr) -> Expr:
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", unsigned, signed)


def _pairs(values: Expr) -> Expr:
    ones = ir.splat(T.int16(1), 16)
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", values, ones)


def _sign(value: Expr, sign: Expr) -> Expr:
    return T.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.psign.b", value, sign)
