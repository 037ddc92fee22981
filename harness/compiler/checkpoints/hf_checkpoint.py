"""A Hugging Face folder as a checkpoint: config.json, safetensors files and a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.compiler.architectures import decoder
from harness.compiler.architectures.decoder import EMBEDDING, HEAD
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.expected_tensors import (
    check_names,
    check_tensor,
    expected_tensors,
)
from harness.compiler.checkpoints.hf_config import read_config
from harness.compiler.checkpoints.mapped_tensor import MappedTensor
from harness.compiler.checkpoints.safetensors_file import SafeTensor, read_safetensors
from harness.compiler.checkpoints.safetensors_shards import read_shards
from harness.compiler.model_config import DecoderConfig
from harness.compiler.sources import needed_files
from harness.compiler.tokenization.hf_tokenizer import read_tokenizer_folder
from harness.errors import StageFailed

# Buffers that earlier versions of transformers saved; they follow from the configuration.
_BUFFERS = (".rotary_emb.inv_freq",)
# Where a multimodal model keeps its text part: the first are transformers 4's names.
_TEXT_PREFIXES = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
}
_OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")


def open_hf_checkpoint(folder: Path) -> Checkpoint:
    """Open a folder as `save_pretrained` writes it.

    Raises `StageFailed` for files that are damaged, missing or contradict each other,
    `UsageError` for a model that the compiler does not know or weights that it does not read.
    """
    config, tensors = read_model(folder)
    tokenizer = read_tokenizer_folder(folder).limited_to(config.vocab_size)
    name = folder.resolve().name
    return Checkpoint(folder, name, config.family, config, tokenizer, tensors)


def read_model(folder: Path) -> tuple[DecoderConfig, Mapping[str, MappedTensor]]:
    """The configuration and the tensors of a folder. Raises as `open_hf_checkpoint` does."""
    stored = _read_tensors(folder)
    config, multimodal = read_config(folder / needed_files.CONFIG)
    wanted = expected_tensors(decoder(config))
    head = f"{HEAD}.weight"
    found: dict[str, SafeTensor] = {}
    for name, tensor in stored.items():
        ours = _text_name(name) if multimodal else name
        if ours is None or ours.endswith(_BUFFERS):
            continue
        if ours in found:
            raise _contradiction(
                folder, f"{name!r:.100} and {found[ours].name!r:.100} are one tensor"
            )
        found[ours] = tensor
    copy = found.pop(head, None) if head not in wanted else None
    check_names(folder, found, wanted)
    tensors: dict[str, MappedTensor] = {}
    for name, expected in wanted.items():
        tensors[name] = _mapped(name, found[name])
        check_tensor(tensors[name], expected.shape, needed_files.CONFIG)
    if copy is not None:
        _check_tied(folder, _mapped(head, copy), tensors[f"{EMBEDDING}.weight"])
    return config, tensors


def _read_tensors(folder: Path) -> Mapping[str, SafeTensor]:
    names = needed_files.in_folder(folder)
    if needed_files.INDEX in names:
        return read_shards(folder / needed_files.INDEX)
    (weights,) = (name for name in names if name.endswith(".safetensors"))
    return read_safetensors(folder / weights)


def _text_name(name: str) -> str | None:
    """The name in a model of text alone; None for what belongs to other parts."""
    if name.removeprefix("model.").startswith(_OTHER_PARTS):
        return None
    for theirs, ours in _TEXT_PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _mapped(name: str, tensor: SafeTensor) -> MappedTensor:
    return MappedTensor(name, tensor.path, tensor.dtype, tensor.shape, tensor.data)


def _check_tied(folder: Path, head: MappedTensor, embedding: MappedTensor) -> None:
    """Whether a head that is announced as the embedding is that."""
    same = head.shape == embedding.shape and head.kind == embedding.kind
    blocks = range(0, len(embedding.data), 4096)
    if not same or not all(
        np.array_equal(head.data[at : at + 4096], embedding.data[at : at + 4096]) for at in blocks
    ):
        raise _contradiction(
            folder, f"config.json ties {head.name} to {embedding.name}, which differs"
        )


def _contradiction(folder: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"{folder.name} is not a whole model",
        cause=cause,
        remedy=f"ls -l {folder}   # get it again from its source",
    )
