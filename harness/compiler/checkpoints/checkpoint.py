"""A checkpoint as the compiler sees it: configuration, tokenizer, and tensors by neutral names.

Tensor names are Hugging Face's for the family (`model.layers.0.self_attn.q_proj.weight`), from
which MLC's are made. Nothing is decoded until it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harness.compiler.model_config import DecoderConfig
from harness.compiler.tokenization.tokenizer_source import TokenizerSource


class CheckpointTensor(Protocol):
    """One tensor, its rows in the order that the family wants."""

    @property
    def name(self) -> str:
        """Hugging Face's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slowest dimension first."""

    @property
    def kind(self) -> str:
        """The stored type by GGUF's name: F32, BF16, Q4_1, Q8_0, ..."""

    def stored(self) -> npt.NDArray[np.uint8]:
        """The bytes as stored, uint8 [rows, bytes of a row]."""

    def values(self) -> npt.NDArray[np.float32]:
        """The values in float32, of shape `shape`.

        Raises `StageFailed` naming file and tensor if some are not finite.
        """

    def row_values(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        """The values in float32 of the rows [begin, end) alone. Raises as `values` does."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a compile takes from a model's source."""

    path: Path
    name: str
    architecture: str
    """The family, by the name that `architectures` has for it."""
    config: DecoderConfig
    tokenizer: TokenizerSource
    tensors: Mapping[str, CheckpointTensor]
