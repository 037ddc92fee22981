from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from harness.compiler.architectures import FAMILIES
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.sources import needed_files
from harness.errors import HarnessError, StageFailed, UsageError

GOLDENS = Path(__file__).parents[1] / "goldens"


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
        decoded = gguf.quants.dequantize(tensor.stored(), gguf.GGMLQuantizationType[tensor.kind])
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
        (lambda w: w.add_tensor("rope_freqs.weight", np.arange(8) / np.float32(9)), "rope_freqs"),
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
        (b"gpt2", b"bort", "the compiler knows"),
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


def test_every_golden_is_opened_by_its_folder_or_its_config_json() -> None:
    folders = sorted(path.parent for path in GOLDENS.glob("*/config.json"))
    assert {open_checkpoint(folder).config.family for folder in folders} == set(FAMILIES)
    for folder in folders:
        checkpoint = open_checkpoint(folder)
        assert checkpoint.name == folder.name and checkpoint.path == folder
        assert checkpoint.tokenizer.end_token_ids == (1,)
        assert len(checkpoint.tokenizer.tokens) == checkpoint.config.vocab_size
        config = json.loads((folder / "config.json").read_text())
        assert checkpoint.config.num_hidden_layers == config["num_hidden_layers"]
        again = open_checkpoint(folder / "config.json")
        assert again.path == folder and again.config == checkpoint.config


def test_a_folder_with_one_gguf_file_is_that_file(tiny_gguf: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_gguf, tmp_path / "tiny.gguf")
    (tmp_path / "README.md").write_text("a model")
    assert open_checkpoint(tmp_path).path == tmp_path / "tiny.gguf"
    assert needed_files.in_folder(tmp_path) == ("tiny.gguf",)


def test_the_files_of_a_checkpoint_are_listed_without_what_lies_beside_them(
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(GOLDENS / "gemma-a", tmp_path / "gemma-a")
    (folder / "README.md").write_text("a model")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    assert list(needed_files.in_folder(folder)) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.model",
    ]


def test_a_tokenizer_larger_than_the_embedding_is_an_error(write_gguf: Callable[..., Path]) -> None:
    def shorten(writer: Any) -> None:
        writer.add_tensor("token_embd.weight", np.ones((200, 64), np.float32))

    with pytest.raises(StageFailed, match="does not fit its embedding"):
        open_checkpoint(write_gguf(skip=("token_embd.weight",), change=shorten))


@pytest.mark.parametrize(
    ("name", "data", "cause"),
    [
        ("model.bin", b"\x80\x04", "may run any code"),
        ("model.pt", b"PK", "may run any code"),
        ("model.ckpt", b"PK", "may run any code"),
        ("model.safetensors", b"\x02" + bytes(7) + b"{}", "a folder with config.json"),
        ("model.onnx", b"abc", "a checkpoint is a GGUF file"),
        ("model.gguf", b"abcd", "letters GGUF"),
        ("model.gguf", b"", "empty"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_clear_error(
    tmp_path: Path, name: str, data: bytes, cause: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(HarnessError) as caught:
        open_checkpoint(path)
    assert cause in caught.value.cause and caught.value.remedy


def test_what_is_not_there_or_holds_nothing_is_one_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none.gguf", tmp_path / "config.json"):
        with pytest.raises(StageFailed, match="No such file"):
            open_checkpoint(path)
    with pytest.raises(UsageError, match=r"no config\.json"):
        open_checkpoint(tmp_path)


def test_thousands_of_damaged_gguf_files_give_no_more_than_a_harness_error(
    tiny_gguf: Path, fuzz: Callable[..., int]
) -> None:
    refused = fuzz(tiny_gguf.read_bytes(), 9000, open_checkpoint, 2000, "damaged.gguf")
    assert 500 < refused < 2000
