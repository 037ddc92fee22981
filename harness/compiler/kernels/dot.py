"""Integer dot products of packed weights with int8 activations: all that is written per ISA.

Four neighbouring columns of several rows fill one register (one 32-bit lane a row): a "quad". The
quads of a step meet the step's words of activations, each in every lane.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence

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


def products(
    isa: Isa,
    fmt: WeightFormat,
    weights: list[Expr],
    q: Buffer,
    tokens: Sequence[Expr],
    first: Expr,
) -> Iterator[Expr]:
    """The sums over a step's columns for each token, exact, as one int32 lane a row.

    The step's activations begin at word `first` of each token. What a token needs is emitted when
    its sums are asked for.
    """
    if isa is Isa.ARMV8_2_I8MM and len(tokens) % 2 == 0:
        pairs = [T.bind(pair) for pair in _row_pairs(weights)]
        for at in range(0, len(tokens), 2):
            yield from _two_tokens(pairs, q, tokens[at], tokens[at + 1], first)
        return
    for token in tokens:
        yield _dot(isa, fmt, weights, _spread(isa, q, token, first, len(weights)))


def _spread(isa: Isa, q: Buffer, token: Expr, first: Expr, count: int) -> list[Expr]:
    """`count` words of a token's activations from word `first`, each in every lane, as bytes."""
    width = 4 * isa.lanes
    if isa in (Isa.ARMV8_2_DOTPROD, Isa.ARMV8_2_I8MM):
        # From whole registers, so that `sdot` takes the word by its lane.
        words = []
        for at in range(0, count, 4):
            start = min(at, count - 4)
            four = T.bind(ir.load(q, 4, token, first + start))
            words += [T.Shuffle([four], [lane] * 4) for lane in range(at - start, 4)]
    else:
        words = [ir.splat(q[token, first + i], isa.lanes) for i in range(count)]
    return [T.reinterpret(f"int8x{width}", word) for word in words]


def _dot(isa: Isa, fmt: WeightFormat, weights: list[Expr], values: list[Expr]) -> Expr:
    """The sums over a step's columns, exact, as one int32 lane a row."""
    both = list(zip(weights, values, strict=True))
    if isa is Isa.ARMV8:
        return _widening(fmt, both)
    if isa in (Isa.ARMV8_2_DOTPROD, Isa.ARMV8_2_I8MM):
        return _accumulated("llvm.aarch64.neon.sdot.v4i32.v16i8", 4, both)
    # x86 multiplies unsigned by signed bytes: |w| <= 128 by +-x with |x| <= 127.
    if fmt.bits == 8:
        both = [(_sign(isa, w, w), _sign(isa, x, w)) for w, x in both]
    if isa is Isa.X86_64_V3_VNNI:
        return _accumulated("llvm.x86.avx512.vpdpbusd.256", 8, both)
    products = [_multiply(isa, w, x) for w, x in both]
    if fmt.bits == 8:
        # The products of two columns are added with saturation at 32767: a pair is at most 32512.
        return ir.tree([_pairs(isa, product) for product in products])
    # A nibble is at most 15, so eight pairs are at most 8 * 2 * 15 * 127 = 30480; ten pairs of
    # 3-bit values are at most 10 * 2 * 7 * 127 = 17780.
    return _pairs(isa, ir.tree(products))


def _accumulated(instruction: str, lanes: int, both: list[tuple[Expr, Expr]]) -> Expr:
    """What `instruction` makes of zeros and all pairs of operands, one after the other."""
    total = ir.splat(T.int32(0), lanes)
    for w, x in both:
        total = T.call_llvm_pure_intrin(f"int32x{lanes}", instruction, total, w, x)
    return total


def _widening(fmt: WeightFormat, both: list[tuple[Expr, Expr]]) -> Expr:
    """The same without an instruction for it: products in int16, two rows a register.

    They are added up in int16 as far as they fit. Eight products of nibbles are at most 15240, ten
    of 3-bit values 8890, and two such sums fit too; of bytes only two products fit, 32512 at most.
    """

    def products(rows: range) -> list[Expr]:
        return [
            T.call_llvm_pure_intrin(
                "int16x8",
                "llvm.aarch64.neon.smull.v8i16",
                T.Shuffle([w], [*rows]),
                T.Shuffle([x], [*range(8)]),
            )
            for w, x in both
        ]

    def neighbours(kind: str, low: Expr, high: Expr) -> Expr:
        return T.call_llvm_pure_intrin(kind, f"llvm.aarch64.neon.addp.v{_LLVM[kind]}", low, high)

    def widened(sums: Expr) -> Expr:
        return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", sums)

    halves = [products(range(8)), products(range(8, 16))]
    if fmt.bits < 8:
        return widened(neighbours("int16x8", *(functools.reduce(operator.add, h) for h in halves)))
    twos = [[a + b for a, b in zip(h[::2], h[1::2], strict=True)] for h in halves]
    return neighbours(
        "int32x4", *(functools.reduce(operator.add, [widened(two) for two in h]) for h in twos)
    )


def _multiply(isa: Isa, unsigned: Expr, signed: Expr) -> Expr:
    name = "avx2.pmadd.ub.sw" if isa.lanes == 8 else "ssse3.pmadd.ub.sw.128"
    return T.call_llvm_pure_intrin(f"int16x{2 * isa.lanes}", f"llvm.x86.{name}", unsigned, signed)


def _pairs(isa: Isa, values: Expr) -> Expr:
    name = "avx2.pmadd.wd" if isa.lanes == 8 else "sse2.pmadd.wd"
    ones = ir.splat(T.int16(1), 2 * isa.lanes)
    return T.call_llvm_pure_intrin(f"int32x{isa.lanes}", f"llvm.x86.{name}", values, ones)


def _sign(isa: Isa, value: Expr, sign: Expr) -> Expr:
    name = "avx2.psign.b" if isa.lanes == 8 else "ssse3.psign.b.128"
    return T.call_llvm_pure_intrin(f"int8x{4 * isa.lanes}", f"llvm.x86.{name}", value, sign)


def _row_pairs(weights: list[Expr]) -> list[Expr]:
    """Two neighbouring quads of four rows as eight columns of rows 0 and 1, then of 2 and 3."""
    found = []
    for low, high in zip(weights[::2], weights[1::2], strict=True):
        words = [T.reinterpret("int32x4", quad) for quad in (low, high)]
        found += [T.reinterpret("int8x16", T.Shuffle(words, at)) for at in _ZIPPED]
    return found


def _two_tokens(
    row_pairs: list[Expr], q: Buffer, token: Expr, next_token: Expr, first: Expr
) -> Iterator[Expr]:
    """The sums for two tokens: a register has those of two rows with both."""
    sums = [ir.splat(T.int32(0), 4)] * 2
    for i in range(len(row_pairs) // 2):
        words = [ir.load(q, 2, one, first + 2 * i) for one in (token, next_token)]
        columns = T.bind(T.reinterpret("int8x16", T.Shuffle(words, [0, 1, 2, 3])))
        for which in range(2):
            sums[which] = T.call_llvm_pure_intrin(
                "int32x4",
                "llvm.aarch64.neon.smmla.v4i32.v16i8",
                sums[which],
                row_pairs[2 * i + which],
                columns,
            )
    sums = [T.bind(one) for one in sums]
    for which in range(2):
        yield T.Shuffle(sums, [which, which + 2, which + 4, which + 6])


_LLVM = {"int16x8": "8i16", "int32x4": "4i32"}
_ZIPPED = ([0, 4, 1, 5], [2, 6, 3, 7])
