"""What a package says of its model: `package.json`'s facts and MLC's `mlc-chat-config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import harness
from harness.compiler import quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.kernels.isa import Isa
from harness.compiler.model_config import PAGE_TOKENS, DecoderConfig
from harness.compiler.options import CompileOptions
from harness.compiler.packages import names
from harness.compiler.packages.memory import Footprint, kv_bytes_per_token
from harness.compiler.packages.package import LAYOUT, tvm_version
from harness.types import Abi


def kv_cache_facts(config: DecoderConfig, dtype: str) -> dict[str, object]:
    """The shape of the KV cache, and its bytes for each token of context."""
    return {
        "layers": config.num_hidden_layers,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "dtype": dtype,
        "page_size": PAGE_TOKENS,
        "bytes_per_token": kv_bytes_per_token(config, dtype),
    }


def variants(abi: Abi, backend: str) -> tuple[Isa, ...]:
    """The variants of a library, from what runs everywhere to the best.

    Where a GPU computes there is one: the processor only calls it.
    """
    return Isa.of(abi) if backend == "cpu" else Isa.of(abi)[:1]


def target_stamp(abi: Abi, backend: str) -> dict[str, object]:
    """What a library for this ABI was built for, with its variants, the best first.

    Loaders refuse a backend that they do not have. They take the first variant whose features the
    processor has: `suffix` ends the names of its functions.
    """
    return {
        "triple": Isa.of(abi)[0].target()["mtriple"],
        "backend": backend,
        "variants": [
            {"name": isa.value, "cpu_features": list(isa.cpu_features), "suffix": isa.suffix}
            for isa in reversed(variants(abi, backend))
        ],
    }


def package_facts(
    *,
    name: str,
    title: str,
    model_code: str | None,
    model: Mapping[str, Any],
    options: CompileOptions,
    context: int,
    footprint: Footprint | None,
    abis: Sequence[Abi],
    source_sha256: str,
    quality: Mapping[str, object] | None,
) -> dict[str, object]:
    """Everything in `package.json` but its schema and its files.

    `model` is what the task `weights` returned; `model_code` is the recipe's word for family,
    generation and size, if it has one; `footprint` is None without a library.
    """
    config = DecoderConfig.from_json(model["config"])
    parameters = parameter_count(config)
    return {
        "name": name,
        "model": title,
        "model_code": model_code or names.model_code(name, config, parameters),
        "architecture": model["architecture"],
        "quantization": options.quantization,
        "layout": LAYOUT if options.layout == "packed" else options.layout,
        "stamp": {
            "tvm": tvm_version(),
            "harness": harness.__version__,
            "source_sha256": source_sha256,
            "options": {**options.weights, **options.code, "context": context},
            "targets": {abi.value: target_stamp(abi, options.backend) for abi in abis},
        },
        "vocab_size": config.vocab_size,
        "context_window": context,
        "prefill_chunk": options.prefill_chunk,
        "eos_token_ids": model["tokens"]["eos"],
        "kv_cache": kv_cache_facts(config, quantization.find(options.quantization).kv_dtype),
        "parameters": parameters,
        "weights_bytes": model["weights_bytes"],
        "bits_per_weight": round(model["weights_bytes"] * 8 / parameters, 3),
        "memory": None if footprint is None else footprint.document(context),
        "quality": quality,
    }


def parameter_count(config: DecoderConfig) -> int:
    """Numbers that training sets, a tied head counted once."""
    return sum(
        item.rows * item.columns if isinstance(item, Matrix) else item.size
        for item in decoder(config).parameters()
    )


def mlc_chat_config(
    model: Mapping[str, Any],
    options: CompileOptions,
    context: int,
    conversation: Mapping[str, Any] | None,
) -> dict[str, object]:
    """MLC's description of a model, with the chat template's own source added.

    `conversation` is what the template is in MLC's form, if it can be that.
    """
    config = DecoderConfig.from_json(model["config"])
    template, tokens = model["chat_template"], model["tokens"]
    return {
        "version": "0.1.0",
        "model_type": model["architecture"],
        "quantization": options.quantization,
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
            "prefill_chunk_size": options.prefill_chunk,
            "max_batch_size": 1,
            "tensor_parallel_shards": 1,
        },
        "vocab_size": config.vocab_size,
        "context_window_size": context,
        "sliding_window_size": -1,
        "prefill_chunk_size": options.prefill_chunk,
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
        **({} if conversation is None else {"conv_template": conversation}),
        "tokenizer_files": ["tokenizer.json"],
        "chat_template": template,
    }
