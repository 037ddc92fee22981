"""Two models of one configuration on the same text, matrix by matrix: a source, and what it became.

What each matrix of both is multiplied with is seen together. Calibration rounds a matrix of the
second model when its turn comes; the measurement of quality compares the two after each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from harness.compiler.model_config import DecoderConfig
from harness.compiler.numerics.evaluate import Array, Evaluator, Values
from harness.compiler.numerics.parts import Held, Item, Parts


class Pair(Parts):
    """The source in the first half of the parts, the other model in the second.

    `meet(matrix, source, other)` is called before a matrix is used, with what it will be multiplied
    with in each model: arrays [rows, columns], one for each part of a half.
    """

    def __init__(
        self,
        config: DecoderConfig,
        source: Values,
        other: Values,
        parts: int,
        meet: Callable[[str, Sequence[Array], Sequence[Array]], None] | None = None,
    ) -> None:
        self.half = parts
        self._meet = meet
        held = (Held(source), Held(other))
        evaluators = [Evaluator(config, one, keep=False) for one in held for _ in range(parts)]
        super().__init__(config, evaluators, *held)

    def begin(self, tokens: Sequence[npt.NDArray[np.integer]]) -> list[Array]:
        """The residual streams of both models for each part's tokens [batch, n]."""
        return self.embeddings([*tokens, *tokens])

    def halves(self, xs: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
        """What belongs to the source, and what to the other model."""
        return xs[: self.half], xs[self.half :]

    def layer(self, index: int, xs: list[Array]) -> list[Array]:
        """The residual streams after one layer, whose keys and values are forgotten."""
        streams = super().layer(index, xs)
        for evaluator in self.evaluators:
            evaluator.reset()
        return streams

    def head(self, xs: list[Array]) -> list[Array]:
        """The logits of both models, one after the other: a head may be larger than all layers."""
        found: list[Array] = []
        halves = zip(self.held, self.halves(self.evaluators), self.halves(xs), strict=True)
        for held, evaluators, half in halves:
            found += Parts(self.config, evaluators, held).head(list(half))
            held.release()
        return found

    def before(self, matrix: str, xs: list[Array]) -> None:
        if self._meet is not None and xs:
            self._meet(matrix, *self.halves([x.reshape(-1, x.shape[-1]) for x in xs]))
        super().before(matrix, xs)
