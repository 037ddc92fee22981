"""The words in which a family's equations are written.

The equations stand once. The compiler reads them with `blocks` (calls of kernels in Relax), the
reference, calibration and the measurement of quality with `evaluate` (numpy). What goes from one
operation to the next is the reader's own business.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

Residual = Any
"""The residual stream, float32 [tokens, hidden]."""
Input = Any
"""What a matrix is multiplied with, [tokens, columns]."""
Activation = Literal["silu", "gelu_tanh"]


class Ops(Protocol):
    """One forward pass over new tokens. Parameters are given by their names."""

    def embed(self, table: str, scale: float = 1.0) -> Residual:
        """The table's rows of the new tokens, times `scale`."""

    def norm(self, x: Residual, weight: str) -> Input:
        """RMS norm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + eps) * weight."""

    def attention(
        self,
        layer: int,
        x: Input,
        qkv: str,
        *,
        bias: str | None = None,
        q_norm: str | None = None,
        k_norm: str | None = None,
    ) -> Input:
        """Grouped-query attention (Ainslie et al. 2023) over all tokens so far.

        Queries, keys and values are x qkv^T (+ bias); q and k heads go through RMS norms if
        named, then are rotated; keys and values join the layer's cache. Window, scale, soft cap
        and rotary positions are the configuration's.
        """

    def linear(self, matrix: str, x: Input, *, residual: Residual | None = None) -> Residual:
        """x w^T, or residual + x w^T."""

    def gated(self, matrix: str, x: Input, activation: Activation) -> Input:
        """activation(x gate^T) * (x up^T) for one matrix of gate's rows, then up's."""

    def add_norm(self, x: Residual, y: Residual, weight: str) -> Residual:
        """x + norm(y)."""

    def logits(self, matrix: str, x: Input, *, softcap: float | None = None) -> Any:
        """x w^T, and with a cap: cap * tanh(x w^T / cap)."""
