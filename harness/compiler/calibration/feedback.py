"""Integers and scales of a matrix that change its product with known inputs the least.

For errors E = W - W' of a matrix and inputs X, the product changes by ||X E^T||^2 = tr(E H E^T),
H = X^T X: the second-order loss of GPTQ (Frantar et al. 2022). Columns are rounded one after the
other; each makes up for the errors of those before it. With the triangular factor H = R R^T the
loss is the sum over columns j of (E_j R_jj + sum_{i<j} E_i R_ij)^2, so column j is best rounded
from w_j + sum_{i<j} E_i R_ij / R_jj, and no inverse of H is needed (Chee et al. 2023, QuIP).

A group's scale is searched when its turn comes. What the loss still has to gain is then taken in
rounds of coordinate descent: each scale, and each integer, anew for all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.numerics.parts import side_by_side
from harness.compiler.quantization import symmetric

Plain = Mapping[str, npt.NDArray[Any]]
Array = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it: directions that no sample had count a little."""
ROUNDS = 4
_SHRINKAGE = np.linspace(0.75, 1.25, 11, dtype=np.float32)
_BLOCK_ROWS = 512


def damped(hessian: Wide, damping: float = DAMPING) -> Wide:
    """H with `damping` times its mean diagonal added to the diagonal."""
    mean = float(np.trace(hessian)) / len(hessian)
    found: Wide = hessian + np.eye(len(hessian)) * (damping * mean or 1.0)
    return found


def round_matrix(weights: Array, hessian: Wide, fmt: WeightFormat) -> Plain:
    """The plain tensors of [rows, columns] in a symmetric format for a (damped) `hessian`.

    Columns are a multiple of the format's group. Rows do not depend on each other.
    """
    grid = _Grid(hessian, fmt)
    blocks = [weights[start : start + _BLOCK_ROWS] for start in range(0, len(weights), _BLOCK_ROWS)]
    found = side_by_side(grid.round, blocks)
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


class _Grid:
    def __init__(self, hessian: Wide, fmt: WeightFormat) -> None:
        # A lower factor of H with its order reversed is an upper factor of H.
        factor = np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1]
        diagonal = np.diagonal(factor)
        self.feedback = np.triu(factor / diagonal, 1).astype(np.float32)
        self.importance = np.square(diagonal).astype(np.float32)
        self.hessian = hessian.astype(np.float32)
        self.fmt = fmt
        self.group = fmt.group
        # Every integer that the bits hold is used: in 4 bits -7 to 8, where rounding to nearest
        # by MLC's rule leaves the 8 out. Scales may be negative, so either end may be the long one.
        self.low = np.float32(-fmt.zero if fmt.zero else -127)
        self.high = np.float32((1 << fmt.bits) - 1 - fmt.zero if fmt.zero else 127)

    def round(self, weights: Array) -> Plain:
        integers, scales = self._first(weights)
        for _ in range(ROUNDS):
            self._descend(weights, integers, scales)
        q_weight = symmetric.stored_integers(integers + np.float32(self.fmt.zero), self.fmt)
        return {"q_weight": q_weight, "q_scale": layout.narrow(scales, self.fmt.dtype)}

    def _groups(self, columns: int) -> list[slice]:
        return [slice(start, start + self.group) for start in range(0, columns, self.group)]

    def _first(self, weights: Array) -> tuple[Array, Array]:
        """Error feedback over the columns, each group with the scale of least loss so far."""
        rows, columns = weights.shape
        errors, integers = np.zeros_like(weights), np.zeros_like(weights)
        scales = np.zeros((rows, columns // self.group), np.float32)
        for index, here in enumerate(self._groups(columns)):
            carried = errors[:, : here.start] @ self.feedback[: here.start, here]
            target = np.ascontiguousarray((weights[:, here] + carried).T)
            scale = self._search(target, self.importance[here])
            found = self._feed(target, scale, self.feedback[here, here])
            integers[:, here], scales[:, index] = found.T, scale
            errors[:, here] = weights[:, here] - (found * scale).T
        return integers, scales

    def _feed(self, target: Array, scale: Array, feedback: Array) -> Array:
        found, errors = np.empty_like(target), np.empty_like(target)
        for j, column in enumerate(target):
            wanted = column + feedback[:j, j] @ errors[:j]
            found[j] = self._nearest(wanted, scale)
            errors[j] = column - found[j] * scale
        return found

    def _search(self, target: Array, importance: Array) -> Array:
        """The scale of each column of `target` [group, rows] with the least weighted error."""
        peaks = np.take_along_axis(target, np.abs(target).argmax(0)[None], 0)[0]
        best = np.full(target.shape[1], np.inf, np.float32)
        chosen = np.ones_like(best)
        for shrinkage in _SHRINKAGE:
            scale = self._stored(peaks * (shrinkage / self.high), chosen)
            left = target - self._nearest(target, scale) * scale
            loss = importance @ np.square(left)
            better = loss < best
            best, chosen = np.where(better, loss, best), np.where(better, scale, chosen)
        return chosen

    def _descend(self, weights: Array, integers: Array, scales: Array) -> None:
        """Each scale and each integer in turn as the others make it best; the loss never grows."""
        errors = weights - integers * scales.repeat(self.group, axis=1)
        for index, here in enumerate(self._groups(weights.shape[1])):
            own = self.hessian[here, here]
            slope = np.ascontiguousarray((errors @ self.hessian[:, here]).T)
            left = np.ascontiguousarray(errors[:, here].T)
            found = np.ascontiguousarray(integers[:, here].T)
            curved = own @ found
            # A group of zeros has no curvature, and any scale.
            curvature = np.maximum((found * curved).sum(0), np.float32(1e-30))
            scale = self._stored(
                scales[:, index] + (found * slope).sum(0) / curvature, scales[:, index]
            )
            step = scale - scales[:, index]
            left -= found * step
            slope -= curved * step
            for j in range(self.group):
                kept = left[j] + found[j] * scale
                found[j] = self._nearest(kept - left[j] + slope[j] / own[j, j], scale)
                change = kept - found[j] * scale - left[j]
                left[j] += change
                slope += own[j][:, None] * change
            integers[:, here], errors[:, here], scales[:, index] = found.T, left.T, scale

    def _nearest(self, values: Array, scale: Array) -> Array:
        rounded: Array = np.clip(np.rint(values / scale), self.low, self.high)
        return rounded

    def _stored(self, scale: Array, instead: Array) -> Array:
        """Scales rounded to their type; `instead` where that is no number to divide by."""
        dtype = str(self.fmt.scale_dtype)
        with np.errstate(over="ignore"):
            rounded = layout.widen(layout.narrow(scale, dtype), dtype)
        usable: Array = np.where((rounded != 0) & np.isfinite(rounded), rounded, instead)
        return usable
