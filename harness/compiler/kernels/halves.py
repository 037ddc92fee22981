"""Conversions between float16 and float32 for processors that have no instructions for them.

They give the bits that F16C and ARMv8 give, NaN's included, by integer operations and one
float32 operation each, whose rounding and subnormal results are those of IEEE 754.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import tirx
from tvm.target import Target

from harness.compiler.kernels.isa import Isa

T: Any = tirx
Expr = Any

_INFINITY = 0x7F800000
_TO_MANTISSA = 13
"""Bits that float32's mantissa is longer."""
_TO_EXPONENT = 112
"""What float32's exponents have more, for one value."""
_QUIET = 0x7E00
_OVERFLOW = (127 + 16) << 23
"""2^16, which float16 lacks; what lies between it and the greatest rounds to its bits anyway."""
_SMALLEST_NORMAL = (127 - 14) << 23
_HALF = 126 << 23
"""0.5, whose last bit is worth what float16's smallest is."""


def are_converted_by_processor() -> bool:
    """Whether the current target has the instructions, or none is current."""
    target = Target.current(allow_none=True)
    return target is None or target.attrs.get("mcpu") != Isa.X86_64_V2.target()["mcpu"]


def to_f32(value: Expr, lanes: int) -> Expr:
    """A float16 vector as float32, exact."""
    uint, number = _Word(lanes), _vector("float32", lanes)
    bits = T.Cast(uint.type, T.reinterpret(_vector("uint16", lanes), value))
    moved = uint.left(bits & uint(0x7FFF), _TO_MANTISSA)
    # The product gives subnormals their exponent; those of infinity and NaN are put in.
    scaled = T.reinterpret(number, moved) * uint.float(2.0**_TO_EXPONENT)
    special = moved >= uint(0x7C00 << _TO_MANTISSA)
    found = T.Select(special, moved | uint(_INFINITY), T.reinterpret(uint.type, scaled))
    return T.reinterpret(number, found | uint.left(bits & uint(0x8000), 16))


def of_f32(value: Expr, lanes: int) -> Expr:
    """A float32 vector as float16, rounded to nearest, ties to even."""
    uint, number = _Word(lanes), _vector("float32", lanes)
    bits = T.reinterpret(uint.type, value)
    size = bits & uint(0x7FFFFFFF)
    # Half of what is cut off, less one unless what stays is odd.
    odd = uint.right(size, _TO_MANTISSA) & uint(1)
    normal = uint.right(
        size - uint(_TO_EXPONENT << 23) + uint((1 << _TO_MANTISSA - 1) - 1) + odd, _TO_MANTISSA
    )
    # The sum with 0.5 has the rounded subnormal in its last bits.
    summed = T.reinterpret(number, size) + uint.float(0.5)
    subnormal = T.reinterpret(uint.type, summed) - uint(_HALF)
    nan = uint.right(size, _TO_MANTISSA) & uint(0x3FF) | uint(_QUIET)
    found = T.Select(size < uint(_SMALLEST_NORMAL), subnormal, normal)
    found = T.Select(size >= uint(_OVERFLOW), uint(0x7C00), found)
    found = T.Select(size > uint(_INFINITY), nan, found)
    found = found | uint.right(bits & uint(0x80000000), 16)
    return T.reinterpret(_vector("float16", lanes), T.Cast(_vector("uint16", lanes), found))


class _Word:
    """uint32 vectors of some lanes: constants, and shifts by them."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self.type = _vector("uint32", lanes)

    def __call__(self, value: int) -> Expr:
        return self._each(T.uint32(value))

    def float(self, value: float) -> Expr:
        return self._each(T.float32(value))

    def left(self, value: Expr, bits: int) -> Expr:
        return T.shift_left(value, self(bits))

    def right(self, value: Expr, bits: int) -> Expr:
        return T.shift_right(value, self(bits))

    def _each(self, value: Expr) -> Expr:
        return value if self._lanes == 1 else T.Broadcast(value, self._lanes)


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"
