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
from harness.compiler.sources import needed_files
from harness.compiler.tokenization.tokenizer_source import TokenizerSource
from harness.errors import StageFailed, UsageError


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


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file, a Hugging Face folder or one that MLC compiled (or its configuration).

    Raises `StageFailed` for files that are damaged, lack something or contradict each other,
    `UsageError` for what is no checkpoint, and for a family or a feature that the compiler does
    not know.
    """
    # The readers need the types above.
    from harness.compiler.checkpoints.gguf_checkpoint import open_gguf_checkpoint
    from harness.compiler.checkpoints.hf_checkpoint import open_hf_checkpoint
    from harness.compiler.mlc.checkpoint import open_mlc_checkpoint

    try:
        if path.name in (needed_files.CONFIG, needed_files.MLC_CONFIG) and path.is_file():
            path = path.parent
        if not path.is_dir():
            _refuse_other_file(path)
            return open_gguf_checkpoint(path)
        names = [file.name for file in checkpoint_files(path)]
    except OSError as problem:
        raise StageFailed(
            f"cannot read {path.name}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -l {path}",
        ) from problem
    if needed_files.MLC_CONFIG in names:
        return open_mlc_checkpoint(path)
    if needed_files.CONFIG in names:
        return open_hf_checkpoint(path)
    return open_gguf_checkpoint(path / names[0])


def checkpoint_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that make up its checkpoint, sorted. Others there do not count.

    Raises as `needed_files.select` does, and `OSError`.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    needed = needed_files.select(str(folder), names, lambda name: (folder / name).read_bytes())
    return tuple(folder / name for name in needed)


def _refuse_other_file(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in needed_files.PICKLES:
        raise needed_files.pickled(str(path.parent), path.name)
    with path.open("rb") as file:
        if suffix == ".gguf" or file.read(4) == b"GGUF":
            return
    raise UsageError(
        f"{path.name} is no checkpoint",
        cause="a checkpoint is a GGUF file, or a folder with config.json and safetensors files",
        remedy="harness models list",
    )
