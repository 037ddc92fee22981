"""Weights rounded with a look at what they are multiplied with.

Samples of text run through the source and through the model that is being made, side by side. When
a matrix's turn comes, its inputs in both are known. It is fitted to give with the one what the
source's gives with the other, so that it makes up for what was lost before it (Li et al. 2025,
GPTAQ), and rounded with the error feedback of GPTQ (`feedback`). A layer is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler import quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import EMBEDDING
from harness.compiler.calibration import samples
from harness.compiler.calibration.feedback import damped, round_matrix
from harness.compiler.calibration.samples import Tokens
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.numerics.evaluate import Array, Evaluator, source_values
from harness.compiler.numerics.pair import Pair
from harness.compiler.numerics.parts import Held, Parts, side_by_side
from harness.errors import UsageError

Plain = Mapping[str, npt.NDArray[Any]]
Wide = npt.NDArray[np.float64]
Progress = Callable[[float, float, str], None]

FIT_DAMPING = 0.05
"""Of the mean of the second moment's diagonal: how firmly the fit holds on to the weights."""
_BLOCK_COLUMNS = 512


def can_calibrate(fmt: WeightFormat) -> bool:
    """Whether a format's integers are ours to choose: not those that keep a GGUF file's own."""
    return fmt.quantized and not fmt.has_minimum


def check(formats: Mapping[str, WeightFormat], count: int) -> None:
    """Raises `UsageError` if there is nothing to calibrate, or nothing to do it on."""
    if not any(can_calibrate(fmt) for fmt in formats.values()):
        raise UsageError(
            "there is nothing to calibrate",
            cause="no weight is rounded to integers of the compiler's choice",
            remedy="--calibration none, or --quant q4f16_1",
        )
    if count < 1:
        raise UsageError(
            f"{count} samples are nothing to calibrate on",
            cause="at least one is needed; a hundred are usual",
            remedy="--calibration-samples 128",
        )


def advice(formats: Mapping[str, WeightFormat]) -> str | None:
    """What an uncalibrated compile to these formats may be told; None if there is little to gain.

    The figures are those of `benchmarks/quality.py`.
    """
    if not any(can_calibrate(fmt) and fmt.bits <= 4 for fmt in formats.values()):
        return None
    return (
        "not calibrated: --calibration self takes longer and loses less "
        "(SmolLM2-135M in q4f16_1: mean KL 0.17 instead of 0.58)"
    )


def texts(
    checkpoint: Checkpoint,
    where: str,
    count: int,
    encode: Callable[[str], list[int]],
    progress: Progress,
) -> list[Tokens]:
    """`count` samples of `where`: what the model itself says (`self`), or a file's path."""
    if where == "self":
        return samples.sample(checkpoint, count, progress)
    return samples.read_samples(checkpoint, Path(where), count, encode)


def calibrated(
    checkpoint: Checkpoint,
    formats: Mapping[str, WeightFormat],
    tokens: Sequence[Tokens],
    progress: Progress = lambda done, total, unit: None,
) -> Iterator[tuple[str, Plain]]:
    """Each matrix of the model by its name, as `layout.pack` takes it, in the model's order."""
    return _Calibration(checkpoint, formats, tokens).matrices(progress)


class _Calibration:
    def __init__(
        self,
        checkpoint: Checkpoint,
        formats: Mapping[str, WeightFormat],
        tokens: Sequence[Tokens],
    ) -> None:
        self.config = checkpoint.config
        self.decoder = decoder(checkpoint.config)
        self._checkpoint = checkpoint
        self._formats = formats
        self._tokens = tokens
        self._items = {item.name: item for item in self.decoder.matrices()}
        self._source = source_values(checkpoint)
        self._made: dict[str, Plain] = {}

    def matrices(self, progress: Progress) -> Iterator[tuple[str, Plain]]:
        if self.decoder.head == EMBEDDING and can_calibrate(self._formats[EMBEDDING]):
            inputs = self._source_inputs_of_head(progress)
            self._make(EMBEDDING, self._source(EMBEDDING), _moment(inputs, inputs))
        else:
            self._store(EMBEDDING)
        pair = Pair(self.config, self._source, self._values, len(self._tokens), self._meet)
        xs = pair.begin(self._tokens)
        yield EMBEDDING, self._made.pop(EMBEDDING)
        layers = self.config.num_hidden_layers
        for index in range(layers):
            progress(index, layers, "layers calibrated")
            xs = pair.layer(index, xs)
            yield from self._made.items()
            self._made.clear()
        progress(layers, layers, "layers calibrated")
        if self.decoder.head != EMBEDDING:
            rows = [x.reshape(-1, x.shape[-1]) for x in self.decoder.final(pair, xs)]
            self._meet(self.decoder.head, *pair.halves(rows))
            yield self.decoder.head, self._made[self.decoder.head]

    def _source_inputs_of_head(self, progress: Progress) -> list[Array]:
        held = Held(self._source)
        evaluators = [Evaluator(self.config, held, keep=False) for _ in self._tokens]
        parts = Parts(self.config, evaluators, held)
        xs = parts.embeddings(self._tokens)
        for index in range(self.config.num_hidden_layers):
            progress(index, self.config.num_hidden_layers, "layers read")
            xs = parts.layer(index, xs)
            for evaluator in evaluators:
                evaluator.reset()
        return [x.reshape(-1, x.shape[-1]) for x in self.decoder.final(parts, xs)]

    def _meet(self, name: str, source: Sequence[Array], other: Sequence[Array]) -> None:
        if not can_calibrate(self._formats[name]):
            self._store(name)
            return
        weights = self._source(name)
        moment = _moment(other, other)
        # W X = (W + D) X' in the least squares of all samples.
        missing = weights @ (_moment(source, other) - moment)
        fitted = np.linalg.solve(damped(moment, FIT_DAMPING), missing.T).T
        self._make(name, weights + fitted.astype(np.float32), moment)

    def _make(self, name: str, weights: Array, moment: Wide) -> None:
        fmt = self._formats[name]
        padding = -weights.shape[1] % fmt.group
        weights = np.pad(weights, ((0, 0), (0, padding)))
        moment = np.pad(moment, (0, padding))
        self._made[name] = round_matrix(weights, damped(moment), fmt)

    def _store(self, name: str) -> None:
        tensors = [self._checkpoint.tensors[source] for source in self._items[name].sources]
        self._made[name] = quantization.store(self._formats[name], tensors)

    def _values(self, name: str) -> Array:
        plain = self._made.get(name)
        if plain is None:
            return self._source(name)
        return layout.dequantize(self._formats[name], plain)[:, : self._items[name].columns]


def _moment(left: Sequence[Array], right: Sequence[Array]) -> Wide:
    """The mean over all rows of left^T right, [columns, columns]."""
    columns = right[0].shape[1]

    def block(start: int) -> Array:
        here = slice(start, start + _BLOCK_COLUMNS)
        found = np.zeros((columns, len(right[0][0, here])), np.float32)
        for a, b in zip(left, right, strict=True):
            found += a.T @ b[:, here]
        return found

    blocks = side_by_side(block, range(0, columns, _BLOCK_COLUMNS))
    rows = sum(len(part) for part in right)
    found: Wide = np.concatenate(blocks, axis=1).astype(np.float64) / rows
    return found
