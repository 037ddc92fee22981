"""How far a compiled model is from its source, in numbers.

It is measured on texts of four kinds that come with the harness and that nothing is calibrated on,
by forward passes in float32 with the weights as the package's shards have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.model_config import DecoderConfig
from harness.compiler.numerics.evaluate import Array, Values, log_softmax
from harness.compiler.numerics.pair import Pair

MAX_TOKENS = 256
MIN_TOKENS = 32
_OPERATIONS = 1e12
"""Floating-point operations that a measurement may take, about: seconds on two cores."""
_WORST = 5


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


def held_out_texts() -> dict[str, str]:
    """The texts that quality is measured on, by their kind."""
    folder = resources.files("harness.compiler") / "texts"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".txt"): file.read_text(encoding="utf-8") for file in files}


def affordable_tokens(config: DecoderConfig, parameters: int) -> int:
    """How many tokens of each text are measured for a model of so many weights."""
    # Two models, and a multiplication and an addition for each weight.
    share = _OPERATIONS / (4 * parameters * len(held_out_texts()))
    return min(max(int(share), MIN_TOKENS), MAX_TOKENS, config.context_window)


def measure(
    config: DecoderConfig,
    source: Values,
    model: Values,
    texts: Mapping[str, Sequence[int]],
    progress: Callable[[float, float, str], None] = lambda done, total, unit: None,
) -> dict[str, Any]:
    """The quality of `model` on tokens of each text, as `package.json` has it.

    Means are over the texts, each counting alike; perplexities are geometric means. A layer's
    error is that of what it adds to the residual stream, relative to what the source's layer adds,
    in the mean over tokens.
    """
    pair = Pair(config, source, model, len(texts))
    xs = pair.begin([np.asarray(tokens, np.intp)[None] for tokens in texts.values()])
    errors: dict[str, float] = {}
    layers = config.num_hidden_layers
    for index in range(layers):
        progress(index, layers, "layers measured")
        after = pair.layer(index, xs)
        added = pair.halves([new - old for new, old in zip(after, xs, strict=True)])
        errors[f"model.layers.{index}"] = _relative_error(*added)
        xs = after
    expected, found = pair.halves(pair.head(xs))
    results = {
        name: compare(tokens, a[0], b[0])
        for (name, tokens), a, b in zip(texts.items(), expected, found, strict=True)
    }
    progress(layers, layers, "layers measured")
    worst = sorted(errors, key=errors.__getitem__, reverse=True)[:_WORST]
    return {
        **_mean(list(results.values())),
        "texts": {name: _rounded(asdict(result)) for name, result in results.items()},
        "worst_layers": _rounded({name: errors[name] for name in worst}),
    }


def _relative_error(source: Sequence[Array], model: Sequence[Array]) -> float:
    parts = [
        np.linalg.norm(a - b, axis=-1) / np.maximum(np.linalg.norm(a, axis=-1), 1e-30)
        for a, b in zip(source, model, strict=True)
    ]
    return float(np.concatenate(parts, axis=None).mean())


def _mean(results: Sequence[Quality]) -> dict[str, Any]:
    found = {
        "tokens": sum(result.tokens for result in results),
        "perplexity": np.exp(np.mean([np.log(result.perplexity) for result in results])),
        "source_perplexity": np.exp(
            np.mean([np.log(result.source_perplexity) for result in results])
        ),
        "mean_kl": np.mean([result.mean_kl for result in results]),
        "same_top": np.mean([result.same_top for result in results]),
    }
    return _rounded(found)


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    # Six digits: more say nothing, and the last bits may differ from one processor to another.
    return {
        name: value if name == "tokens" else float(f"{value:.6g}") for name, value in values.items()
    }
