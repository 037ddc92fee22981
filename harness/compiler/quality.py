"""How far a quantized model is from its source, in numbers on a text.

`benchmarks/quality.py` measures them and keeps them in `quality.json` beside the recipe; compile
copies what belongs to the checkpoint and the quantization into the package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA = "harness.quality/1"
FILE = "quality.json"


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


def compare(
    tokens: Sequence[int], source: npt.NDArray[np.float32], model: npt.NDArray[np.float32]
) -> Quality:
    """Hold a model's logits [n, vocab] after each of `tokens` against those of its source."""
    import numpy as np

    from harness.compiler.evaluate import log_softmax

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
    import numpy as np

    following = np.asarray(tokens[1:])
    return float(np.exp(-log_probabilities[np.arange(len(following)), following].mean()))


def recorded(folder: Path, checkpoint_sha256: str, quantization: str) -> dict[str, Any] | None:
    """What `quality.json` beside a recipe says of a quantization of this checkpoint, if anything.

    Raises `UsageError` if the file cannot be read.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA or document["checkpoint"] != checkpoint_sha256:
            return None
        found: dict[str, Any] | None = document["quantizations"].get(quantization)
        return None if found is None else {"text_sha256": document["text_sha256"], **found}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(
            f"{path} cannot be read",
            cause=f"{type(problem).__name__}: {problem}",
            remedy="python benchmarks/quality.py MODEL   # in a checkout, to make it again",
        ) from problem
