"""A checkpoint as the compiler sees it: configuration, tokenizer, and tensors by neutral names.

Tensor names are Hugging Face's for the architecture (`model.layers.0.self_attn.q_proj.weight`),
from which MLC's are made. Nothing is decoded until it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.compiler.architectures.llama import Llama
from harness.compiler.config_keys import ConfigKeys
from harness.compiler.gguf_file import GgufFile, GgufTensor, read_gguf
from harness.compiler.gguf_tokenizer import read_tokenizer
from harness.compiler.model_config import DecoderConfig
from harness.compiler.tokenizer_source import TokenizerSource
from harness.errors import StageFailed, UsageError


@dataclass(frozen=True)
class CheckpointTensor:
    """One tensor, its rows in the order that the architecture wants."""

    name: str
    source: GgufTensor
    row_order: npt.NDArray[np.intp] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def kind(self) -> str:
        """The stored type by GGUF's name: F32, F16, Q4_1, Q8_0, ..."""
        return str(self.source.type.name)

    def stored(self) -> npt.NDArray[np.uint8]:
        """The bytes as stored, uint8 [rows, bytes of a row]."""
        rows = self.source.data
        return rows if self.row_order is None else rows[self.row_order]

    def values(self) -> npt.NDArray[np.float32]:
        """The values in float32, of shape `shape`."""
        values = self.source.values()
        return values if self.row_order is None else values[self.row_order]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a compile takes from a model's source."""

    path: Path
    name: str
    architecture: str
    config: DecoderConfig
    tokenizer: TokenizerSource
    tensors: Mapping[str, CheckpointTensor]


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file of a Llama-form model.

    Raises `StageFailed` for a file that is damaged or lacks something, `UsageError` for an
    architecture or a feature that the compiler does not know.
    """
    file = read_gguf(path)
    architecture = _text(file, "general.architecture")
    if architecture != "llama":
        raise UsageError(
            f"{path.name} holds a model of the architecture {architecture!r}",
            cause="the compiler knows: llama",
            remedy="harness models list",
        )
    tokenizer = read_tokenizer(file)
    config = _llama_config(file)
    if len(tokenizer.tokens) != config.vocab_size:
        raise _lacking(
            file,
            f"its vocabulary has {len(tokenizer.tokens)} tokens, "
            f"its embedding {config.vocab_size} rows",
        )
    name = str(file.metadata.get("general.name", path.stem))
    return Checkpoint(path, name, architecture, config, tokenizer, _llama_tensors(file, config))


# The names of config.json for the keys of GGUF's metadata, which begin with the architecture.
_CONFIG_KEYS = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings",
}


def _llama_config(file: GgufFile) -> DecoderConfig:
    _refuse_unknown_rope(file)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise _lacking(file, "it has no token_embd.weight")
    values: dict[str, Any] = {
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    spelled = {ours: f"llama.{theirs}" for theirs, ours in _CONFIG_KEYS.items()}
    for ours, theirs in spelled.items():
        value = file.metadata.get(theirs)
        if isinstance(value, float):
            # Stored in float32: the shortest decimal that names it is what its author wrote.
            value = float(str(np.float32(value)))
        values[ours] = value
    config = Llama.configure(ConfigKeys(file.path, values, spelled))
    if embedding.shape[1] != config.hidden_size:
        raise _lacking(file, "its token_embd.weight has another width than announced")
    for key in ("llama.rope.dimension_count", "llama.attention.value_length"):
        if file.metadata.get(key, config.head_dim) != config.head_dim:
            raise _unsupported(file, f"{key} differs from the head size {config.head_dim}")
    if file.metadata.get("llama.expert_count", 0):
        raise _unsupported(file, "it is a mixture of experts")
    return config


def _refuse_unknown_rope(file: GgufFile) -> None:
    scaling = file.metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in file.tensors:
        raise _unsupported(file, "it scales its rotary positions")


_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _llama_tensors(file: GgufFile, config: DecoderConfig) -> dict[str, CheckpointTensor]:
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    if not config.tie_word_embeddings:
        names["output"] = "lm_head"
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _LAYER_TENSORS.items():
            names[f"blk.{layer}.{ours}"] = f"model.layers.{layer}.{theirs}"
    unknown = file.tensors.keys() - {f"{name}.weight" for name in names}
    if unknown:
        raise _unsupported(file, f"it has tensors that Llama has not: {_some(unknown)}")
    missing = {f"{name}.weight" for name in names} - file.tensors.keys()
    if missing:
        raise _lacking(file, f"it lacks the tensors {_some(missing)}")
    tensors: dict[str, CheckpointTensor] = {}
    for theirs, ours in names.items():
        tensor = file.tensors[f"{theirs}.weight"]
        expected = _shape(theirs.rpartition(".")[2], config)
        if tensor.shape != expected:
            raise _lacking(
                file, f"{tensor.name} has the shape {list(tensor.shape)}, not {list(expected)}"
            )
        order = None
        if theirs.endswith(("attn_q", "attn_k")):
            order = half_rotation_rows(tensor.shape[0], config.head_dim)
        tensors[f"{ours}.weight"] = CheckpointTensor(f"{ours}.weight", tensor, order)
    return tensors


def half_rotation_rows(rows: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Which stored row each row of a q or k projection comes from.

    GGUF's llama stores the two halves of a head interleaved (pairs i, i + d/2 side by side), so
    that rotary positions turn neighbours; here they turn halves, as in Hugging Face's files.
    """
    stored = np.arange(rows).reshape(rows // head_dim, head_dim // 2, 2)
    return np.ascontiguousarray(stored.swapaxes(1, 2)).reshape(rows)


def _shape(part: str, config: DecoderConfig) -> tuple[int, ...]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    return {
        "token_embd": (config.vocab_size, hidden),
        "output": (config.vocab_size, hidden),
        "attn_q": (q, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_output": (hidden, q),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }.get(part, (hidden,))


def _text(file: GgufFile, key: str) -> str:
    value = file.metadata.get(key)
    if not isinstance(value, str):
        raise _lacking(file, f"it does not say its {key}")
    return value


def _lacking(file: GgufFile, cause: str) -> StageFailed:
    return StageFailed(
        f"{file.path.name} is not a whole model",
        cause=cause,
        remedy=f"ls -l {file.path}   # get the file again from its source",
    )


def _unsupported(file: GgufFile, cause: str) -> UsageError:
    return UsageError(
        f"{file.path.name} is a Llama of a form that the compiler does not know",
        cause=cause,
        remedy="harness models list",
    )


def _some(names: set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
