"""Texts to calibrate on: what the model itself says, or a file of the user's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.numerics.evaluate import Array, Evaluator, source_values
from harness.compiler.numerics.parts import Held, Parts
from harness.compiler.tokenization.tokenizer_source import TokenizerSource, TokenType
from harness.errors import UsageError

Tokens = npt.NDArray[np.intp]
Progress = Callable[[float, float, str], None]

SEQUENCE = 128
"""Tokens of a sample, or the model's context if that is shorter."""
PART = 8
"""Samples that are worked on as one."""
_SAID_AT_ONCE = 32
"""Samples that are drawn as one: they go through a matrix a token at a time."""
TEMPERATURE = 0.9
_SEED = 20_220_623
_HELD_BYTES = 2 << 30
"""A model whose float32 weights take more is read anew for each token that is sampled."""


def sample(checkpoint: Checkpoint, count: int, progress: Progress) -> list[Tokens]:
    """`count` texts of SEQUENCE tokens that the model says, in parts [samples, SEQUENCE].

    Each begins with another token drawn from the vocabulary (after BOS where the model wants it),
    as Liu et al. 2023 (LLM-QAT) propose, and goes on as the model has it at TEMPERATURE. Control
    tokens are never drawn: a text does not end.
    """
    source = checkpoint.tokenizer
    config = checkpoint.config
    kinds = np.full(config.vocab_size, TokenType.UNUSED)
    kinds[: len(source.token_types)] = source.token_types
    ordinary = np.flatnonzero((kinds == TokenType.NORMAL) | (kinds == TokenType.BYTE))
    forbidden = np.ones(config.vocab_size, bool)
    forbidden[ordinary] = False
    starts = range(0, count, _SAID_AT_ONCE)
    random = [np.random.default_rng([_SEED, start]) for start in starts]
    texts = [
        np.array([[*start_tokens(source), first] for first in rng.choice(ordinary, size)])
        for rng, size in zip(random, [min(_SAID_AT_ONCE, count - i) for i in starts], strict=True)
    ]
    values = _held(checkpoint)
    parts = Parts(config, [Evaluator(config, values, keep=False) for _ in texts], values)
    new = texts
    length = _length(checkpoint)
    for done in range(texts[0].shape[1], length):
        progress(done, length, "tokens of each sample")
        xs = parts.embeddings(new)
        for layer in range(config.num_hidden_layers):
            xs = parts.layer(layer, xs)
        scores = parts.head([x[:, -1:] for x in xs])
        new = [
            _draw(rng, score[:, 0], forbidden) for rng, score in zip(random, scores, strict=True)
        ]
        texts = [np.hstack(both) for both in zip(texts, new, strict=True)]
    return _parts(np.concatenate(texts))


def read_samples(
    checkpoint: Checkpoint, path: Path, count: int, encode: Callable[[str], list[int]]
) -> list[Tokens]:
    """`count` samples of SEQUENCE tokens from a file of texts, evenly spread over it.

    The file is a JSON array of strings, JSON lines (strings, or objects with "text"), or plain
    text. Raises `UsageError` if it cannot be read or holds less.
    """
    tokens = [token for text in _texts(path) for token in encode(text)]
    bos = start_tokens(checkpoint.tokenizer)
    length = _length(checkpoint) - len(bos)
    available = len(tokens) // length
    if available < count:
        remedy = f"--calibration-samples {available}" if available else "--calibration self"
        raise UsageError(
            f"{path} has too little text for {count} samples",
            cause=f"it has {len(tokens)} tokens, and a sample takes {length}",
            remedy=f"{remedy}   # or give a longer text",
        )
    starts = np.linspace(0, len(tokens) - length, count).astype(int)
    rows = np.array([[*bos, *tokens[start : start + length]] for start in starts])
    return _parts(rows)


def _length(checkpoint: Checkpoint) -> int:
    return min(SEQUENCE, checkpoint.config.context_window)


def _parts(samples: Tokens) -> list[Tokens]:
    return [samples[start : start + PART] for start in range(0, len(samples), PART)]


def _held(checkpoint: Checkpoint) -> Held:
    size = sum(4 * int(np.prod(tensor.shape)) for tensor in checkpoint.tensors.values())
    return Held(source_values(checkpoint), keep_matrices=size <= _HELD_BYTES)


def start_tokens(source: TokenizerSource) -> list[int]:
    """What a text on its own begins with."""
    return [source.bos_token_id] if source.add_bos and source.bos_token_id is not None else []


def _draw(rng: np.random.Generator, scores: Array, forbidden: npt.NDArray[np.bool_]) -> Tokens:
    # The largest of log-probabilities with Gumbel noise is a draw from their distribution.
    noisy = scores / np.float32(TEMPERATURE) + rng.gumbel(size=scores.shape)
    noisy[:, forbidden] = -np.inf
    drawn: Tokens = noisy.argmax(-1)[:, None]
    return drawn


def _texts(path: Path) -> list[str]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(
            f"cannot read the texts to calibrate on from {path}",
            cause=str(problem),
            remedy="--calibration self   # text that the model samples",
        ) from problem
    documents = _documents(content)
    if documents is None:
        return [content]
    return [_text(path, number, document) for number, document in enumerate(documents, 1)]


def _documents(content: str) -> list[Any] | None:
    """The elements of a JSON array, or the values of JSON lines; None for any other text."""
    try:
        whole = json.loads(content)
        if isinstance(whole, list):
            return whole
    except (ValueError, RecursionError):
        pass
    try:
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None
    return lines if all(isinstance(line, (str, dict)) for line in lines) else None


def _text(path: Path, number: int, document: Any) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise UsageError(
            f"{path} is no list of texts",
            cause=f'entry {number} is neither a string nor an object with a string "text"',
            remedy='a JSON array of strings, JSON lines with "text", or plain text',
        )
    return text
