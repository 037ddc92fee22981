"""What a package says of its model: `package.json`'s facts and MLC's `mlc-chat-config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harness
from harness.compiler.kernels.isa import Isa
from harness.compiler.model_config import PAGE_TOKENS, DecoderConfig
from harness.compiler.package import LAYOUT, tvm_version
from harness.types import Abi

_DTYPE_BYTES = {"float16": 2, "float32": 4}


def kv_cache_facts(config: DecoderConfig, dtype: str) -> dict[str, object]:
    """The shape of the KV cache, and its bytes for each token of context."""
    values = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
    return {
        "layers": config.num_hidden_layers,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "dtype": dtype,
        "page_size": PAGE_TOKENS,
        "bytes_per_token": values * _DTYPE_BYTES[dtype],
    }


def target_stamp(abi: Abi) -> dict[str, object]:
    """What a library for this ABI was built for; loaders refuse a CPU without these features."""
    isa = Isa.of(abi)
    return {"triple": isa.target()["mtriple"], "cpu_features": list(isa.cpu_features)}


def package_facts(
    *,
    name: str,
    title: str,
    model: Mapping[str, Any],
    quantization: str,
    kv_dtype: str,
    context: int,
    prefill_chunk: int,
    source_sha256: str,
    targets: Mapping[str, object],
    quality: Mapping[str, object] | None,
) -> dict[str, object]:
    """Everything in `package.json` but its schema and its files.

    `model` is what the task `weights` returned, `targets` the stamp of each ABI's library.
    """
    config = DecoderConfig.from_json(model["config"])
    return {
        "name": name,
        "model": title,
        "architecture": model["architecture"],
        "quantization": quantization,
        "layout": LAYOUT,
        "stamp": {
            "tvm": tvm_version(),
            "harness": harness.__version__,
            "source_sha256": source_sha256,
            "options": {"context": context, "prefill_chunk": prefill_chunk},
            "targets": dict(targets),
        },
        "vocab_size": config.vocab_size,
        "context_window": context,
        "prefill_chunk": prefill_chunk,
        "eos_token_ids": model["tokens"]["eos"],
        "kv_cache": kv_cache_facts(config, kv_dtype),
        "weights_bytes": model["weights_bytes"],
        "quality": quality,
    }


def mlc_chat_config(
    model: Mapping[str, Any], quantization: str, context: int, prefill_chunk: int
) -> dict[str, object]:
    """MLC's description of a model, with the chat template's own source added."""
    config = DecoderConfig.from_json(model["config"])
    template, tokens = model["chat_template"], model["tokens"]
    return {
        "version": "0.1.0",
        "model_type": model["architecture"],
        "quantization": quantization,
        "model_config": {
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "rms_norm_eps": config.rms_norm_eps,
            "position_embedding_base": config.rope.theta,
            "vocab_size": config.vocab_size,
            "tie_word_embeddings": config.tie_word_embeddings,
            "context_window_size": context,
            "prefill_chunk_size": prefill_chunk,
            "max_batch_size": 1,
            "tensor_parallel_shards": 1,
        },
        "vocab_size": config.vocab_size,
        "context_window_size": context,
        "sliding_window_size": -1,
        "prefill_chunk_size": prefill_chunk,
        "attention_sink_size": -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": 1,
        "bos_token_id": tokens["bos"],
        "eos_token_id": tokens["eos"],
        "pad_token_id": tokens["padding"],
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        # MLC knows templates by name only: ChatML's, or "LM" for none.
        "conv_template": "chatml" if template and "<|im_start|>" in template else "LM",
        "tokenizer_files": ["tokenizer.json"],
        "chat_template": template,
    }
