"""The instruction sets that kernels are written for: the variants of a model library.

A library holds the code of every set of its ABI. Whoever loads it takes the best one whose
features the processor has; the first of each ABI runs on every device that has the ABI.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from harness.types import Abi


class Isa(StrEnum):
    """An instruction set, named as compilers name it. Of one ABI, each contains those before."""

    ARMV8 = "armv8-a"
    """NEON with the conversions between f16 and f32 that every ARMv8 core has."""
    ARMV8_2_DOTPROD = "armv8.2-a+dotprod"
    """`sdot`; no f16 arithmetic."""
    ARMV8_2_I8MM = "armv8.2-a+dotprod+i8mm"
    """`smmla` for two tokens at once, `sdot` for one."""
    X86_64_V2 = "x86-64-v2"
    """SSE4.2 in registers of 128 bits: no FMA, no conversions between f16 and f32."""
    X86_64_V3 = "x86-64-v3"
    """AVX2, FMA and F16C."""
    X86_64_V3_VNNI = "x86-64-v3+avxvnni"
    """`vpdpbusd` in its AVX form; nothing of AVX-512."""

    @classmethod
    def of(cls, abi: Abi) -> tuple[Isa, ...]:
        """The variants of a library for this ABI, from what runs everywhere to the best."""
        return tuple(isa for isa in cls if isa.abi is abi)

    @property
    def abi(self) -> Abi:
        """The ABI whose processors have it."""
        return Abi.ARM64 if self.startswith("armv8") else Abi.X86_64

    @property
    def lanes(self) -> int:
        """32-bit lanes of one vector register."""
        return 8 if self.startswith(Isa.X86_64_V3) else 4

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """The features, as /proc/cpuinfo names them, without which its code must not run."""
        return _FEATURES[self]

    @property
    def suffix(self) -> str:
        """What the names of a library's functions for this set end in; nothing for the first."""
        # TVM's names have no dots.
        return "" if self is Isa.of(self.abi)[0] else f"@{self.replace('.', '_')}"

    def target(self) -> dict[str, Any]:
        """TVM's target for code that serves both bionic and glibc."""
        arch = "aarch64" if self.abi is Abi.ARM64 else "x86_64"
        cpu, *extensions = _COMPILED_AS[self].split("+")
        target: dict[str, Any] = {"kind": "llvm", "mtriple": f"{arch}-linux-android", "mcpu": cpu}
        return {**target, "mattr": [f"+{one}" for one in extensions]} if extensions else target


# "generic" is ARMv8.0: of later levels the kernels use nothing but what is named here.
_COMPILED_AS = {
    Isa.ARMV8: "generic",
    Isa.ARMV8_2_DOTPROD: "generic+dotprod",
    Isa.ARMV8_2_I8MM: "generic+dotprod+i8mm",
    Isa.X86_64_V2: "x86-64-v2",
    Isa.X86_64_V3: "x86-64-v3",
    Isa.X86_64_V3_VNNI: "x86-64-v3+avxvnni",
}
_V2 = ("ssse3", "sse4_1", "sse4_2", "popcnt")
# All that the level allows a compiler to use, since an emulator may leave out any of it.
_V3 = (*_V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
_FEATURES = {
    Isa.ARMV8: ("asimd",),
    Isa.ARMV8_2_DOTPROD: ("asimd", "asimddp"),
    Isa.ARMV8_2_I8MM: ("asimd", "asimddp", "i8mm"),
    Isa.X86_64_V2: _V2,
    Isa.X86_64_V3: _V3,
    Isa.X86_64_V3_VNNI: (*_V3, "avx_vnni"),
}
