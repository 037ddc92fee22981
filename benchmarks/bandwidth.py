"""How fast this machine's memory is read, by as many threads as a model has."""

from __future__ import annotations

import time

import numpy as np
import tvm

from harness.compiler.kernels import ir
from harness.compiler.kernels.ir import T
from harness.compiler.kernels.isa import Isa

BLOCK = 1024
"""Words that a sum is of: 4 KB."""
LANES, SUMS = 8, 4
AHEAD = 2


def read_bandwidth(size: int, rounds: int = 15) -> float:
    """Bytes a second of the fastest pass over `size` bytes that nothing else is done with.

    Takes the threads that TVM's pool is configured for.
    """
    blocks = size // (4 * BLOCK)
    words = tvm.runtime.tensor(np.ones((blocks, BLOCK), np.int32))
    sums = tvm.runtime.tensor(np.zeros((blocks, LANES), np.int32))
    target = tvm.target.Target({**Isa.X86_64_V3.target(), "mtriple": "x86_64-linux-gnu"})
    module = tvm.IRModule({"read": _read(blocks).with_attr("global_symbol", "read")})
    read = tvm.compile(module, target=target)["read"]
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        read(words, sums)
        best = min(best, time.perf_counter() - began)
    return blocks * BLOCK * 4 / best


def _read(blocks: int) -> ir.PrimFunc:
    """sums[b] = the sum of block b's words, so that all of them are read."""

    def emit() -> None:
        words = ir.argument("words", (blocks, BLOCK), "int32")
        sums = ir.argument("sums", (blocks, LANES), "int32")
        with ir.loop(blocks, parallel=True) as block:
            parts = [ir.stack(LANES, "int32") for _ in range(SUMS)]
            for part in parts:
                ir.store(part, ir.splat(T.int32(0), LANES), LANES, 0)
            with ir.loop(BLOCK // (LANES * SUMS)) as step:
                at = step * (LANES * SUMS)
                for line in range(0, LANES * SUMS, 16):
                    ir.prefetch(words, block + AHEAD, at + line)
                for i, part in enumerate(parts):
                    new = ir.load(part, LANES, 0) + ir.load(words, LANES, block, at + i * LANES)
                    ir.store(part, new, LANES, 0)
            ir.store(sums, ir.tree([ir.load(part, LANES, 0) for part in parts]), LANES, block, 0)

    return ir.function("read", emit)
