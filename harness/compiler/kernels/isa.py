"""The instruction sets that kernels are written for: each ABI's baseline here."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from harness.types import Abi


class Isa(StrEnum):
    """An instruction set, named by what the kernels use of it."""

    X86_64_V3 = "x86-64-v3"
    """AVX2, FMA and F16C. AVX-VNNI is not in this level, so no kernel uses it."""
    ARMV8_2_DOTPROD = "armv8.2-a+dotprod"
    """NEON with `sdot` and conversions between f16 and f32; no f16 arithmetic, no i8mm."""

    @classmethod
    def of(cls, abi: Abi) -> Isa:
        """The instruction set that a library for this ABI is built for."""
        return cls.ARMV8_2_DOTPROD if abi is Abi.ARM64 else cls.X86_64_V3

    @property
    def lanes(self) -> int:
        """32-bit lanes of one vector register."""
        return 4 if self is Isa.ARMV8_2_DOTPROD else 8

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """The features, as /proc/cpuinfo names them, without which a library must not run."""
        if self is Isa.ARMV8_2_DOTPROD:
            return ("asimddp",)
        return ("avx2", "fma", "f16c")

    def target(self) -> dict[str, Any]:
        """TVM's target for a model library that serves both bionic and glibc."""
        if self is Isa.ARMV8_2_DOTPROD:
            return {
                "kind": "llvm",
                "mtriple": "aarch64-linux-android",
                "mcpu": "generic",
                "mattr": ["+v8.2a", "+dotprod"],
            }
        return {"kind": "llvm", "mtriple": "x86_64-linux-android", "mcpu": "x86-64-v3"}
