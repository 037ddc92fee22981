from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from harness.compiler.checkpoint import open_checkpoint
from harness.errors import HarnessError, StageFailed, UsageError


def test_a_checkpoint_says_what_its_file_says(tiny_gguf: Path) -> None:
    checkpoint = open_checkpoint(tiny_gguf)
    config = checkpoint.config
    assert checkpoint.name == "Tiny" and checkpoint.architecture == "llama"
    assert (config.hidden_size, config.intermediate_size) == (64, 96)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 16)
    assert config.rms_norm_eps == 1e-5 and config.rope.theta == 10000.0
    assert config.tie_word_embeddings and config.vocab_size == 272
    assert checkpoint.tokenizer.tokens[2] == "<|im_end|>"
    assert checkpoint.tokenizer.merges[2] == ("he", "ll")
    assert checkpoint.tokenizer.pre == "smollm" and not checkpoint.tokenizer.add_bos


def test_query_and_key_rows_come_in_half_rotation_order(
    write_gguf: Callable[..., Path],
) -> None:
    weights: dict[str, Any] = {}
    checkpoint = open_checkpoint(write_gguf(weights=weights))
    for ours, theirs in (("q", "attn_q"), ("k", "attn_k"), ("v", "attn_v"), ("o", "attn_output")):
        tensor = checkpoint.tensors[f"model.layers.1.self_attn.{ours}_proj.weight"]
        assert np.array_equal(tensor.values(), weights[f"blk.1.{theirs}.weight"])
        decoded = gguf.quants.dequantize(tensor.stored(), tensor.source.type)
        assert np.array_equal(decoded, tensor.values())


def test_an_untied_head_is_read(write_gguf: Callable[..., Path]) -> None:
    checkpoint = open_checkpoint(write_gguf(tied=False))
    assert not checkpoint.config.tie_word_embeddings
    assert checkpoint.tensors["lm_head.weight"].shape == (272, 64)


def test_an_unknown_architecture_is_named(write_gguf: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="mamba") as caught:
        open_checkpoint(write_gguf(architecture="mamba"))
    assert "llama" in caught.value.cause and caught.value.remedy


def test_a_missing_tensor_is_named(write_gguf: Callable[..., Path]) -> None:
    with pytest.raises(StageFailed, match=r"blk\.1\.ffn_up\.weight"):
        open_checkpoint(write_gguf(skip=("blk.1.ffn_up.weight",)))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda w: w.add_tensor("blk.0.attn_q.bias", np.zeros(64, np.float32)), "attn_q.bias"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.ones(8, np.float32)), "rotary"),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), "rotary"),
        (lambda w: w.add_rope_dimension_count(8), "differs from the head size"),
        (lambda w: w.add_expert_count(8), "mixture"),
    ],
)
def test_a_feature_that_would_be_computed_wrongly_is_refused(
    write_gguf: Callable[..., Path], change: Callable[[Any], None], cause: str
) -> None:
    with pytest.raises(UsageError) as caught:
        open_checkpoint(write_gguf(change=change))
    assert cause in caught.value.cause


def _replace(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1 and len(old) == len(new)
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        (b"llama.block_count", b"llama.block_cuont", "lacks llama.block_count"),
        (b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz", "tokenizer.ggml.tokens is missing"),
        (b"gpt2", b"bert", "byte-level BPE"),
        (b"h e", b"h_e", "has no two parts"),
    ],
)
def test_incomplete_metadata_is_one_clear_error(
    tiny_gguf: Path, tmp_path: Path, old: bytes, new: bytes, cause: str
) -> None:
    path = tmp_path / "changed.gguf"
    path.write_bytes(_replace(tiny_gguf.read_bytes(), old, new))
    with pytest.raises(HarnessError) as caught:
        open_checkpoint(path)
    assert cause in caught.value.cause and caught.value.remedy
