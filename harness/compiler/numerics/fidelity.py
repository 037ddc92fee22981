"""How near a package's logits are to a reference's, and how near they must be."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.compiler.numerics.evaluate import log_softmax

_ROWS = 64


@dataclass(frozen=True)
class Fidelity:
    """Differences of logits over all positions, and of the distributions that they mean."""

    max_abs: float
    mean_abs: float
    kl: float
    """Mean of KL(reference || package) over positions, in nats."""
    top1: float
    """Share of positions where both have the same best token."""


@dataclass(frozen=True)
class Tolerance:
    """What a package may differ by. `max_abs` binds the forms that keep the weights' values."""

    kl: float
    max_abs: float | None
    reason: str

    def broken_by(self, found: Fidelity) -> str:
        """What is outside, in words; empty if nothing is."""
        if not found.kl <= self.kl:
            return f"KL is {found.kl:.3g}, at most {self.kl:g} is allowed"
        if self.max_abs is not None and not found.max_abs <= self.max_abs:
            return f"a logit is {found.max_abs:.3g} away, at most {self.max_abs:g} is allowed"
        return ""


def fidelity(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> Fidelity:
    """Compare logits [n, vocabulary]; a value that is no number makes every figure NaN."""
    largest, total, kl, same = 0.0, 0.0, 0.0, 0
    # Some rows at a time: float64 copies of a whole vocabulary's logits are large.
    for at in range(0, len(reference), _ROWS):
        expected, actual = reference[at : at + _ROWS], found[at : at + _ROWS]
        apart = np.abs(expected.astype(np.float64) - actual)
        if not np.isfinite(apart).all():
            return Fidelity(*[float("nan")] * 4)
        largest = max(largest, float(apart.max()))
        total += float(apart.sum())
        source, model = log_softmax(expected), log_softmax(actual)
        kl += float((np.exp(source) * (source - model)).sum())
        same += int((expected.argmax(-1) == actual.argmax(-1)).sum())
    return Fidelity(largest, total / reference.size, kl / len(reference), same / len(reference))


def tolerance(quantization: str, activations: str) -> Tolerance:
    """What a quantization may differ by from its source.

    A wrong layout, window, rotation or norm costs a KL of one or more; the bounds lie above what
    rounding costs SmolLM2 (docs/quantization.md) and below that. Three bits cost it a KL of 3, so
    that only gross mistakes show in them.
    """
    bits = int(re.match(r"q(\d)", quantization)[1])  # type: ignore[index]
    if quantization.endswith("_gguf"):
        kept = Tolerance(0.05, None, "the file's own values, activations rounded to 8 bits")
        return kept if activations == "int8" else Tolerance(1e-3, None, "the file's own values")
    if bits == 0:
        if quantization == "q0f32":
            return Tolerance(1e-4, 2e-3, "float32 throughout: another order of summation")
        return Tolerance(5e-3, None, "weights and KV cache rounded to 16 bits")
    if bits == 8:
        return Tolerance(0.05, None, "weights and activations rounded to 8 bits")
    if bits == 4:
        return Tolerance(0.75, None, "symmetric 4-bit weights")
    return Tolerance(5.0, None, "symmetric 3-bit weights")
