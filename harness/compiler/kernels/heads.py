"""The sizes of a model's attention, which its kernels and those of its cache share."""

from __future__ import annotations

from typing import NamedTuple

from harness.compiler.model_config import PAGE_TOKENS

PAGE = PAGE_TOKENS
LANES = 8
"""Floats of a vector: heads are cut into so many columns at a time."""
NO_WINDOW = 1 << 30
"""The window of a layer that sees everything: larger than any position."""


class Heads(NamedTuple):
    """The sizes of one model's attention, and the type of q, k, v and the pages.

    `window` is how many keys, the query's own included, the model's windowed layers see. With a
    `softcap` c, a scaled score s counts as c * tanh(s / c) (Gemma 2).
    """

    query: int
    key_value: int
    size: int
    dtype: str
    window: int | None = None
    softcap: float | None = None

    @property
    def group(self) -> int:
        """Query heads for each key/value head."""
        return self.query // self.key_value

    def check(self) -> None:
        """Raise ValueError for sizes that the kernels do not serve."""
        if self.query % self.key_value:
            raise ValueError(f"{self.query} heads do not share {self.key_value} key/value heads")
        if self.size % LANES:
            raise ValueError(f"a head size of {self.size} is not a multiple of {LANES}")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"a KV cache of {self.dtype} is not supported")
        if self.window is not None and not 0 < self.window < NO_WINDOW:
            raise ValueError(f"a window of {self.window} keys is not supported")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"a soft cap of {self.softcap} is not positive")


def layer_scale(scale: float, *, windowed: bool) -> float:
    """What a layer hands the runtime as `sm_scale`: the kernels take a negative one as windowed.

    `scale` is what its scores are multiplied with. A windowed layer needs `Heads.window`.
    """
    return -scale if windowed else scale
