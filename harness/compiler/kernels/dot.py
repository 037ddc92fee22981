"""Integer dot products of packed weights with int8 activations: all that is written per ISA.

Four neighbouring columns of several rows fill one register (one 32-bit lane a row): a "quad". The
eight quads of a group meet the group's eight words of activations, each in every lane.
"""

from __future__ import annotations

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import Buffer, Expr, T
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import GROUP, ROWS, WeightFormat

_QUADS = GROUP // 4


def quads(
    isa: Isa, fmt: WeightFormat, words: Buffer, block: Expr, group: Expr, at: int
) -> list[Expr]:
    """The eight quads of one group for rows `at`.. of a block, as bytes in registers."""
    width = 4 * isa.lanes
    if fmt == WeightFormat.Q8_0:
        return [
            T.bind(T.reinterpret(f"int8x{width}", ir.load(words, isa.lanes, block, group, at + c)))
            for c in range(0, _QUADS * ROWS, ROWS)
        ]
    result = []
    for c in range(0, _QUADS // 2 * ROWS, ROWS):
        pairs = T.reinterpret(f"uint8x{width}", ir.load(words, isa.lanes, block, group, at + c))
        pairs = T.bind(pairs)
        low = T.bitwise_and(pairs, ir.splat(T.uint8(15), width))
        high = T.shift_right(pairs, ir.splat(T.uint8(4), width))
        result += [T.bind(T.reinterpret(f"int8x{width}", half)) for half in (low, high)]
    return result


def spread(isa: Isa, q: Buffer, token: Expr, group: Expr) -> list[Expr]:
    """The eight words of a token's group, each in every lane, as bytes."""
    width = 4 * isa.lanes
    if isa is Isa.ARMV8_2_DOTPROD:
        # From whole registers, so that `sdot` takes the word by its lane.
        words = []
        for at in range(0, _QUADS, 4):
            four = T.bind(ir.load(q, 4, token, group * _QUADS + at))
            words += [T.Shuffle([four], [lane] * 4) for lane in range(4)]
    else:
        words = [ir.splat(q[token, group * _QUADS + i], isa.lanes) for i in range(_QUADS)]
    return [T.reinterpret(f"int8x{width}", word) for word in words]


def dot(isa: Isa, fmt: WeightFormat, weights: list[Expr], values: list[Expr]) -> Expr:
    """The sums over a group's 32 columns, exact, as one int32 lane a row."""
    if isa is Isa.ARMV8_2_DOTPROD:
        total = ir.splat(T.int32(0), 4)
        for w, x in zip(weights, values, strict=True):
            total = T.call_llvm_pure_intrin(
                "int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", total, w, x
            )
        return total
    if fmt == WeightFormat.Q8_0:
        # The instruction multiplies unsigned by signed bytes and saturates pairs at 32767: with
        # |w| <= 128 on the one side and +-x, |x| <= 127, on the other a pair is at most 32512.
        return ir.tree(
            [_pairs(_multiply(_sign(w, w), _sign(x, w))) for w, x in _zip(weights, values)]
        )
    # A nibble is at most 15, so eight pairs are at most 8 * 2 * 15 * 127 = 30480.
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
