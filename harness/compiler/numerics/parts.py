"""A forward pass over many sequences in parts: the parts of an operation run side by side.

Every part has an `Evaluator` with a cache of its own, and every matrix is read once for all of
them. Parts are cut by their size and never by the number of processors, so results do not depend
on it: a caller who leaves BLAS one thread gets the same bits on any machine of one kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import EMBEDDING
from harness.compiler.architectures.ops import Activation
from harness.compiler.model_config import DecoderConfig
from harness.compiler.numerics.evaluate import Array, Evaluator, Values

Result = TypeVar("Result")
Item = TypeVar("Item")
_pool = ThreadPoolExecutor(os.cpu_count())


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The function of each item, in order; numpy lets go of the interpreter meanwhile."""
    return list(_pool.map(function, items))


class Held:
    """Values by name that stay at hand for the evaluators of all parts.

    Vectors stay; a matrix is read before it is used, in place of the last one unless
    `keep_matrices`.
    """

    def __init__(self, values: Values, *, keep_matrices: bool = False) -> None:
        self._values = values
        self._keep = keep_matrices
        self._vectors: dict[str, Array] = {}
        self._matrices: dict[str, Array] = {}

    def __call__(self, name: str) -> Array:
        if name in self._matrices:
            return self._matrices[name]
        if name not in self._vectors:
            self._vectors[name] = self._values(name)
        return self._vectors[name]

    def read(self, matrix: str) -> None:
        """Have a matrix at hand."""
        if matrix in self._matrices:
            return
        if not self._keep:
            self._matrices.clear()
        self._matrices[matrix] = self._values(matrix)

    def release(self) -> None:
        """Let go of the matrices."""
        self._matrices.clear()


class Parts:
    """The operations of `architectures.ops.Ops` on lists with an array for each part.

    `held` is what the evaluators have their parameters from.
    """

    def __init__(self, config: DecoderConfig, evaluators: Sequence[Evaluator], *held: Held) -> None:
        self.config = config
        self.decoder = decoder(config)
        self.evaluators = evaluators
        self.held = held

    def before(self, matrix: str, xs: list[Array]) -> None:
        """Called with what a matrix is about to be multiplied with; nothing for the embedding.

        The matrix is read here, so that all parts find it held.
        """
        for held in self.held:
            held.read(matrix)

    def embeddings(self, tokens: Sequence[npt.NDArray[np.integer]]) -> list[Array]:
        """The residual streams of each part's tokens [batch, n] before the first layer."""
        self.before(EMBEDDING, [])
        return self._each(lambda part, ids: part.embeddings(ids), tokens)

    def layer(self, index: int, xs: list[Array]) -> list[Array]:
        """The residual streams after one layer."""
        streams: list[Array] = self.decoder.layer(self, index, xs)
        return streams

    def head(self, xs: list[Array]) -> list[Array]:
        """The logits of the last residual streams, [batch, n, vocab] a part."""
        scores: list[Array] = self.decoder.logits(self, self.decoder.final(self, xs))
        return scores

    # The operations, part by part.

    def embed(self, table: str, scale: float = 1.0) -> list[Array]:
        return side_by_side(lambda part: part.embed(table, scale), self.evaluators)

    def norm(self, xs: list[Array], weight: str) -> list[Array]:
        return self._each(lambda part, x: part.norm(x, weight), xs)

    def attention(
        self,
        layer: int,
        xs: list[Array],
        qkv: str,
        *,
        bias: str | None = None,
        q_norm: str | None = None,
        k_norm: str | None = None,
    ) -> list[Array]:
        self.before(qkv, xs)
        return self._each(
            lambda part, x: part.attention(layer, x, qkv, bias=bias, q_norm=q_norm, k_norm=k_norm),
            xs,
        )

    def linear(
        self, matrix: str, xs: list[Array], *, residual: list[Array] | None = None
    ) -> list[Array]:
        self.before(matrix, xs)
        if residual is None:
            return self._each(lambda part, x: part.linear(matrix, x), xs)
        return self._each(
            lambda part, pair: part.linear(matrix, pair[0], residual=pair[1]),
            list(zip(xs, residual, strict=True)),
        )

    def gated(self, matrix: str, xs: list[Array], activation: Activation) -> list[Array]:
        self.before(matrix, xs)
        return self._each(lambda part, x: part.gated(matrix, x, activation), xs)

    def add_norm(self, xs: list[Array], ys: list[Array], weight: str) -> list[Array]:
        pairs = list(zip(xs, ys, strict=True))
        return self._each(lambda part, pair: part.add_norm(*pair, weight), pairs)

    def logits(self, matrix: str, xs: list[Array], *, softcap: float | None = None) -> list[Array]:
        self.before(matrix, xs)
        return self._each(lambda part, x: part.logits(matrix, x, softcap=softcap), xs)

    def _each(
        self, function: Callable[[Evaluator, Item], Array], items: Sequence[Item]
    ) -> list[Array]:
        pairs = list(zip(self.evaluators, items, strict=True))
        return side_by_side(lambda pair: function(*pair), pairs)
