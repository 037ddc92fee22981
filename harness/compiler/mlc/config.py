"""A model's configuration as MLC's `mlc-chat-config.json` has it in `model_config`.

Its keys are the fields of MLC's configuration classes, which are config.json's but for a few.
Sources: mlc_llm/model/*/*_model.py and mlc_llm/protocol/mlc_chat_config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.compiler.architectures import FAMILIES
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig, RopeScaling
from harness.compiler.sources.needed_files import MLC_CONFIG
from harness.errors import StageFailed, UsageError

_TYPES = {**{name: name for name in FAMILIES}, "gemma3_text": "gemma3"}
_RENAMED = {
    "position_embedding_base": "rope_theta",
    "context_window_size": "max_position_embeddings",
    "sliding_window_size": "sliding_window",
}


def read_model_config(path: Path, document: Mapping[str, Any]) -> DecoderConfig:
    """The configuration in an `mlc-chat-config.json`.

    Raises `StageFailed` for a value that is missing or cannot be, `UsageError` for a family or a
    feature that the compiler does not know.
    """
    name, values = document.get("model_type"), document.get("model_config")
    if not isinstance(values, dict):
        raise _broken(path, "it has no model_config")
    if not isinstance(name, str) or name not in _TYPES:
        raise UsageError(
            f"{path.parent.name} holds a model that MLC calls {name!r:.60}",
            cause=f"the compiler knows: {', '.join(sorted(_TYPES))}",
            remedy="harness models list",
        )
    keys = _flat(path, values)
    if not isinstance(keys.get("rope_scaling"), dict):
        # MLC's Gemma 3 has 0 for none.
        keys.pop("rope_scaling", None)
    for theirs, ours in _RENAMED.items():
        value = keys.pop(theirs, None)
        # Not above 0: it is not known, or stands under the other name.
        if value is not None and not (type(value) in (int, float) and value <= 0):
            keys[ours] = value
    spelled = {ours: theirs for theirs, ours in _RENAMED.items()}
    return FAMILIES[_TYPES[name]].configure(ConfigKeys(path, keys, spelled))


def _flat(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """All keys: of `text_config` above others, of what a class did not know (`kwargs`) below."""
    text = values.get("text_config")
    found: dict[str, Any] = {}
    for part in (values, text):
        if part is None:
            continue
        if not isinstance(part, dict) or not isinstance(part.get("kwargs", {}), dict):
            raise _broken(path, "text_config or kwargs is no object")
        found |= {**part.get("kwargs", {}), **part}
    return found


def model_config(config: DecoderConfig, context: int, prefill_chunk: int) -> dict[str, Any]:
    """MLC's `model_config` of a model that is compiled for so many tokens of context.

    Raises `UsageError` if MLC's class for the family has no place for something.
    """
    found = _document(config, context, prefill_chunk)
    document = {"model_type": config.family, "model_config": found}
    told = asdict(read_model_config(Path(MLC_CONFIG), document))
    meant = asdict(replace(config, context_window=context))
    lost = [name for name, value in meant.items() if told[name] != value]
    if lost:
        raise UsageError(
            f"MLC's {config.family} cannot be this model",
            cause=f"its configuration has no place for this {', '.join(lost)}",
            remedy="--layout packed",
        )
    return found


def _document(config: DecoderConfig, context: int, prefill_chunk: int) -> dict[str, Any]:
    sizes = {"context_window_size": context, "prefill_chunk_size": prefill_chunk}
    model = {"vocab_size": config.vocab_size, "tensor_parallel_shards": 1, "max_batch_size": 1}
    layers = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps,
        **sizes,
        **_FAMILY_KEYS[config.family](config),
    }
    if config.family != "gemma3":
        return {**layers, **model}
    window = {"sliding_window_size": config.sliding_window}
    return {"text_config": layers, **model, **sizes, **window, "is_text_model": True}


def _llama(config: DecoderConfig) -> dict[str, Any]:
    # MLC's class knows Llama 3's scaling alone.
    scaling = config.rope.scaling
    return {
        "tie_word_embeddings": config.tie_word_embeddings,
        "position_embedding_base": _whole(config.rope.theta),
        "rope_scaling": _scaling(scaling) if scaling and scaling.kind == "llama3" else None,
        "pipeline_parallel_stages": 1,
        "disaggregation": False,
    }


def _gemma(config: DecoderConfig) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "hidden_activation": "gelu_pytorch_tanh",
        "position_embedding_base": _whole(config.rope.theta),
    }


def _gemma2(config: DecoderConfig) -> dict[str, Any]:
    return {
        **_gemma(config),
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.final_softcap,
        "query_pre_attn_scalar": _whole(config.query_scale**-2),
        "sliding_window": config.sliding_window,
    }


def _gemma3(config: DecoderConfig) -> dict[str, Any]:
    scaling, local = config.rope.scaling, config.local_rope
    return {
        **_gemma(config),
        "query_pre_attn_scalar": _whole(config.query_scale**-2),
        "rope_scaling": _scaling(scaling) if scaling else 0,
        "sliding_window_size": config.sliding_window,
        # What its class does not know is kept here.
        "kwargs": {"rope_local_base_freq": _whole(local.theta)} if local else {},
    }


def _qwen2(config: DecoderConfig) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "rope_theta": _whole(config.rope.theta),
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": "float32",
    }


def _qwen3(config: DecoderConfig) -> dict[str, Any]:
    return {**_qwen2(config), "attention_bias": False, "weight_block_size": None}


_FAMILY_KEYS: dict[str, Callable[[DecoderConfig], dict[str, Any]]] = {
    "llama": _llama,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}


def _scaling(scaling: RopeScaling) -> dict[str, Any]:
    """As config.json has it."""
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        found |= {
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return found


def _whole(number: float) -> float:
    """As an integer where it is one, but for the last bits of a root."""
    return round(number) if abs(number - round(number)) < 1e-9 * abs(number) else number


def _broken(path: Path, cause: str) -> StageFailed:
    return StageFailed(
        f"{path.name} describes no model",
        cause=cause,
        remedy=f"ls -l {path}   # copy or fetch the whole folder again",
    )
