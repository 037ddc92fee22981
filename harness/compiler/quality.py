"""How far a quantized model is from its source, in two numbers on a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.compiler.reference import log_softmax

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Quality:
    """A model against its source on one text. Perplexities are exp of the mean loss in nats."""

    tokens: int
    perplexity: float
    source_perplexity: float
    mean_kl: float
    """Mean of KL(source || model) over positions, in nats."""
    same_top: float
    """Share of positions where both have the same best token."""


def compare(tokens: Sequence[int], source: Array, model: Array) -> Quality:
    """Hold a model's logits [n, vocab] after each of `tokens` against those of its source."""
    expected, found = log_softmax(source), log_softmax(model)
    return Quality(
        tokens=len(tokens),
        perplexity=perplexity(tokens, found),
        source_perplexity=perplexity(tokens, expected),
        mean_kl=float((np.exp(expected) * (expected - found)).sum(-1).mean()),
        same_top=float((source.argmax(-1) == model.argmax(-1)).mean()),
    )


def perplexity(tokens: Sequence[int], log_probabilities: npt.NDArray[np.float64]) -> float:
    """exp of the mean loss of predicting each token but the first."""
    following = np.asarray(tokens[1:])
    return float(np.exp(-log_probabilities[np.arange(len(following)), following].mean()))
