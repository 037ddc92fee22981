"""The optimisation levels, and what a GPU gets instead of them.

At every level a library has the same functions of the same parameters over the same weights.

    3   kernels written by hand; a norm and the rounding behind it are one; views are made once
    2   kernels written by hand, and nothing else
    1   plain kernels, which TVM's CPU rules share among threads; float32 activations
    0   plain kernels without a schedule; float32 activations
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm

from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.plain_cache import GROUP_ITEMS, Items
from harness.compiler.passes.schedules import cpu_schedules, gpu_schedules


@dataclass(frozen=True)
class Level:
    """What a library is made of and what is done to it."""

    items: Items | None = None
    """How plain kernels run; None for those written by hand."""
    schedules: Callable[[], Any] | None = None
    """Makes the pass that schedules plain kernels."""
    fuses_norms: bool = False
    """Whether a norm is rounded to int8 by the kernel that makes it."""
    reuses_views: bool = False


CPU = (
    Level(Items.LOOP),
    Level(Items.LOOP, cpu_schedules),
    Level(),
    Level(fuses_norms=True, reuses_views=True),
)
"""The levels 0 to 3."""
OPENCL = Level(Items.GPU, gpu_schedules, reuses_views=True)


def target(isa: Isa, backend: str, device: str | None = None) -> Any:
    """TVM's target for a backend, with `isa` as the host's.

    For "opencl", `device` may be "adreno" or "mali". What no device is named for serves both: a
    work group has at most 256 items, and no kernel uses textures.
    """
    host = tvm.target.Target(isa.target())
    if backend == "cpu":
        return host
    named = {} if device is None else {"device": device}
    return tvm.target.Target(
        {"kind": "opencl", "max_threads_per_block": GROUP_ITEMS, **named}, host=host
    )
