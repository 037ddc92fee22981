"""A GGUF file as a checkpoint: its metadata and tensors by Hugging Face's names.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#llm. Names of tensors are those
under which llama.cpp's converter writes them, which `gguf` from PyPI knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

from harness.compiler.architectures import FAMILIES, decoder
from harness.compiler.architectures.decoder import Decoder
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.checkpoints.expected_tensors import (
    check_names,
    check_tensor,
    expected_tensors,
)
from harness.compiler.checkpoints.gguf_file import GgufFile, read_gguf
from harness.compiler.checkpoints.mapped_tensor import MappedTensor
from harness.compiler.model_config import DecoderConfig, Rope, RopeScaling
from harness.compiler.tokenization.gguf_tokenizer import read_tokenizer
from harness.errors import UsageError

# The names of config.json for the keys of GGUF's metadata, which begin with the architecture.
_REQUIRED = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "expert_count": "num_experts",
}
_ROPE_FACTORS = "rope_freqs.weight"
# The largest models of Gemma 2 and 3 scale queries by hidden / heads, all others by the head size;
# the file does not say which. llama.cpp, too, knows them by their number of layers.
_QUERIES_BY_WIDTH = {"gemma2": 46, "gemma3": 62}


def open_gguf_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file.

    Raises `StageFailed` for a file that is damaged or lacks something, `UsageError` for an
    architecture or a feature that the compiler does not know.
    """
    config, tensors, file = read_model(path)
    tokenizer = read_tokenizer(file).limited_to(config.vocab_size)
    name = file.metadata.get("general.name", path.stem)
    return Checkpoint(path, str(name), config.family, config, tokenizer, tensors)


def read_model(path: Path) -> tuple[DecoderConfig, Mapping[str, MappedTensor], GgufFile]:
    """The configuration and the tensors of a file. Raises as `open_gguf_checkpoint` does."""
    file = read_gguf(path)
    family = _family(file)
    keys = _keys(file, family)
    config = family.configure(keys)
    if config.sliding_window is not None and keys.values["sliding_window"] is None:
        raise keys.wrong("sliding_window")
    _refuse_unknown(keys, file, config)
    config = replace(config, rope=_rope(keys, file, config))
    return config, _tensors(keys, file, config), file


def _family(file: GgufFile) -> type[Decoder]:
    name = file.metadata.get("general.architecture")
    if isinstance(name, str) and name in FAMILIES:
        return FAMILIES[name]
    raise UsageError(
        f"{file.path.name} holds a model of the architecture {name!r:.60}",
        cause=f"the compiler knows: {', '.join(FAMILIES)}",
        remedy="harness models list",
    )


def _keys(file: GgufFile, family: type[Decoder]) -> ConfigKeys:
    """The metadata by the names of config.json."""
    architecture = family.family
    names = {**_REQUIRED, **_OPTIONAL}
    spelled = {ours: f"{architecture}.{theirs}" for theirs, ours in names.items()}
    values: dict[str, Any] = {
        ours: _shortest(file.metadata.get(key)) for ours, key in spelled.items()
    }
    keys = ConfigKeys(file.path, values, spelled)
    for key in _REQUIRED.values():
        # What transformers takes for an absent key is not meant by a file of another kind.
        if values[key] is None:
            raise keys.wrong(key)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise keys.broken("it has no token_embd.weight")
    layers, heads = keys.integer("num_hidden_layers"), keys.integer("num_attention_heads")
    width = max(keys.integer("hidden_size") // heads, 1)
    head_dim = keys.integer("head_dim", width)
    by_width = _QUERIES_BY_WIDTH.get(architecture) == layers
    values |= {
        "num_key_value_heads": keys.integer("num_key_value_heads", heads),
        "head_dim": head_dim,
        "query_pre_attn_scalar": width if by_width else head_dim,
        "rope_theta": keys.number("rope_theta", 10000.0),
        "rope_scaling": _scaling(file, architecture),
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    pattern = file.metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        values["layer_types"] = [
            "sliding_attention" if windowed else "full_attention" for windowed in pattern
        ]
    else:
        values["sliding_window_pattern"] = pattern
    return keys


def _shortest(value: Any) -> Any:
    # Stored in float32: the shortest decimal that names it is what its author wrote.
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _scaling(file: GgufFile, architecture: str) -> dict[str, Any] | None:
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "none":
        return None
    factor = _shortest(file.metadata.get(f"{architecture}.rope.scaling.factor"))
    return {"rope_type": kind, "factor": factor}


def _refuse_unknown(keys: ConfigKeys, file: GgufFile, config: DecoderConfig) -> None:
    for key in ("rope.dimension_count", "attention.value_length"):
        key = f"{config.family}.{key}"
        if file.metadata.get(key, config.head_dim) != config.head_dim:
            raise keys.unsupported(f"{key} differs from the head size {config.head_dim}")
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise keys.unsupported(
            "it is one part of a split file: llama-gguf-split --merge joins them"
        )


def _rope(keys: ConfigKeys, file: GgufFile, config: DecoderConfig) -> Rope:
    """Llama 3's scaling from the factors that the converter made of it.

    Factors divide the frequencies. Low, high and original context are not in the file; all
    releases of Llama 3 have the same, and the factors show whether these are meant.
    """
    stored = file.tensors.get(_ROPE_FACTORS)
    if stored is None:
        return config.rope
    plain = np.asarray(config.rope.frequencies(config.head_dim))
    if stored.shape != plain.shape or stored.type.name != "F32" or config.rope.scaling:
        raise keys.unsupported(f"{_ROPE_FACTORS} is not one float32 a rotated pair")
    factors = stored.values().reshape(-1)
    if (factors == 1.0).all():
        return config.rope
    rope = Rope(config.rope.theta, RopeScaling("llama3", _shortest(float(factors.max()))))
    expected = plain / np.asarray(rope.frequencies(config.head_dim))
    if not np.allclose(factors, expected, rtol=1e-4, atol=0.0):
        raise keys.unsupported(f"{_ROPE_FACTORS} has other factors than Llama 3's")
    return rope


def _tensors(keys: ConfigKeys, file: GgufFile, config: DecoderConfig) -> dict[str, MappedTensor]:
    expected = expected_tensors(decoder(config))
    spelled = _spelling(keys, config, expected)
    check_names(file.path, file.tensors.keys() - {_ROPE_FACTORS}, spelled.values())
    tensors = {}
    for name, item in expected.items():
        stored = file.tensors[spelled[name]]
        order = None
        if config.family == "llama" and (".q_proj." in name or ".k_proj." in name):
            order = half_rotation_rows(item.shape[0], config.head_dim)
        # The converter has added already what the family adds to its norms.
        tensor = MappedTensor(
            stored.name, file.path, stored.type.name, stored.shape, stored.data, order, -item.offset
        )
        check_tensor(tensor, item.shape, "its metadata")
        tensors[name] = replace(tensor, name=name)
    return tensors


def _spelling(
    keys: ConfigKeys, config: DecoderConfig, names: Mapping[str, object]
) -> dict[str, str]:
    """GGUF's names for Hugging Face's."""
    architectures = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    table = get_tensor_name_map(architectures[config.family], config.num_hidden_layers)
    spelled = {}
    for name in names:
        theirs = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise keys.unsupported(f"its family has no {name} in GGUF")
        spelled[name] = theirs
    return spelled


def half_rotation_rows(rows: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Which stored row each row of a q or k projection comes from.

    GGUF's llama stores the two halves of a head interleaved (pairs i, i + d/2 side by side), so
    that rotary positions turn neighbours; here they turn halves, as in Hugging Face's files.
    """
    stored = np.arange(rows).reshape(rows // head_dim, head_dim // 2, 2)
    return np.ascontiguousarray(stored.swapaxes(1, 2)).reshape(rows)
