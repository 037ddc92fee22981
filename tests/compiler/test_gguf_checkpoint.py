from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from harness.compiler.architectures import FAMILIES
from harness.compiler.checkpoints.gguf_checkpoint import read_model
from harness.compiler.checkpoints.hf_checkpoint import read_model as read_folder
from harness.compiler.model_config import Rope, RopeScaling
from harness.errors import StageFailed, UsageError

Writer = Callable[..., Path]
Config = Callable[[str], dict[str, Any]]
Weights = Callable[..., dict[str, Any]]
BLOCKS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_and_a_gguf_file_of_the_same_weights_are_the_same_model(
    write_folder: Writer,
    write_family_gguf: Writer,
    family_config: Config,
    family_weights: Weights,
    family: str,
) -> None:
    config = family_config(family)
    weights = family_weights(config)
    theirs_config, theirs = read_folder(write_folder(config, weights))
    ours_config, ours, _ = read_model(write_family_gguf(config, weights))
    assert ours_config == theirs_config
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.name == name and tensor.shape == theirs[name].shape
        # The converter rounds a norm's weight plus one to float32.
        rounding = 1e-7 if tensor.offset else 0.0
        assert np.abs(tensor.values() - theirs[name].values()).max() <= rounding, name


@pytest.mark.parametrize("kind", ["F16", "BF16", *BLOCKS])
def test_stored_types_decode_as_the_gguf_package_decodes_them(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights, kind: str
) -> None:
    config = family_config("llama")
    weights = family_weights(config)
    type_ = gguf.GGMLQuantizationType[kind]
    _, tensors, _ = read_model(write_family_gguf(config, weights, matrix=type_))
    for name, values in weights.items():
        if values.ndim == 2:
            expected = gguf.quants.dequantize(gguf.quants.quantize(values, type_), type_)
            assert tensors[name].kind == kind
            assert np.array_equal(tensors[name].values(), expected)
            assert np.array_equal(tensors[name].row_values(7, 30), expected[7:30])


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_k_quants_are_read_through_their_values(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights, kind: str
) -> None:
    config = {**family_config("gemma"), "hidden_size": 256}
    weights = family_weights(config)
    table = weights.pop("model.embed_tokens.weight")
    type_ = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[type_]
    # Any bytes are a block; these have small scales, wherever the block keeps them.
    rng = np.random.default_rng(5)
    stored = rng.integers(0, 60, (len(table), table.shape[1] // block * size), dtype=np.uint8)

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("token_embd.weight", stored, raw_dtype=type_)

    _, tensors, _ = read_model(write_family_gguf(config, weights, change=add))
    tensor = tensors["model.embed_tokens.weight"]
    assert tensor.shape == table.shape and tensor.kind == kind
    assert np.array_equal(tensor.values(), gguf.quants.dequantize(stored, type_))


def test_a_type_that_nobody_decodes_is_named(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("gemma")
    weights = family_weights(config)
    table = weights.pop("model.embed_tokens.weight")

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("token_embd.weight", table.astype(np.float64))

    with pytest.raises(UsageError, match=r"F64 \(token_embd\.weight in gemma\.gguf"):
        read_model(write_family_gguf(config, weights, change=add))


def _with(
    write: Writer, config: dict[str, Any], weights: dict[str, Any], *changes: tuple[str, Any]
) -> Any:
    """The configuration of a model with some metadata more, by method of the writer."""

    def change(writer: gguf.GGUFWriter) -> None:
        for method, value in changes:
            if isinstance(value, np.ndarray):
                writer.add_tensor(method, value)
            elif method.startswith("add_"):
                getattr(writer, method)(value)
            elif isinstance(value, list):
                writer.add_array(method, value)
            elif isinstance(value, float):
                writer.add_float32(method, value)
            else:
                writer.add_uint32(method, value)

    return read_model(write(config, weights, change=change))[0]


def test_metadata_says_what_config_json_would(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("gemma3")
    weights = family_weights(config)
    linear = (
        ("add_rope_scaling_type", gguf.RopeScalingType.LINEAR),
        ("add_rope_scaling_factor", 8.0),
    )
    plain = _with(write_family_gguf, config, weights)
    read = _with(write_family_gguf, config, weights, *linear)
    assert read == replace(plain, rope=Rope(1e6, RopeScaling("linear", 8.0)))
    read = _with(write_family_gguf, config, weights, ("gemma3.rope.freq_base_swa", 20000.0))
    assert read == replace(plain, local_rope=Rope(20000.0))
    key = "gemma3.attention.sliding_window_pattern"
    read = _with(write_family_gguf, config, weights, (key, 3))
    assert read.windowed_layers == (True, True, False, True, True, False, True)
    pattern = [True, False, False, False, False, True, True]
    read = _with(write_family_gguf, config, weights, (key, pattern))
    assert read.windowed_layers == tuple(pattern)


def test_llama_3_scaling_is_found_in_its_factors(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    config = {**family_config("llama"), "rope_theta": 500000.0}
    weights = family_weights(config)
    scaled = Rope(500000.0, RopeScaling("llama3", 32.0, 1.0, 4.0, 8192))
    plain = np.asarray(Rope(500000.0).frequencies(16))
    factors = (plain / np.asarray(scaled.frequencies(16))).astype(np.float32)
    assert factors[0] == 1 and 1 < factors[-1] <= 32
    for values, rope in ((factors, scaled), (np.ones(8, np.float32), Rope(500000.0))):
        change = ("rope_freqs.weight", values)
        assert _with(write_family_gguf, config, weights, change).rope == rope
    for values in (factors * np.float32(1.01), factors[:4], factors.astype(np.float16)):
        with pytest.raises(UsageError, match=r"rope_freqs\.weight"):
            _with(write_family_gguf, config, weights, ("rope_freqs.weight", values))


def test_the_largest_gemmas_scale_queries_by_their_width(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    config = {**family_config("gemma2"), "num_hidden_layers": 46, "head_dim": 8}
    read = _with(write_family_gguf, config, family_weights(config))
    assert read.query_scale == (64 / 4) ** -0.5


@pytest.mark.parametrize(
    ("family", "change", "cause"),
    [
        ("llama", ("add_rope_dimension_count", 8), "differs from the head size"),
        ("llama", ("add_rope_scaling_type", gguf.RopeScalingType.YARN), "'yarn'"),
        ("llama", ("add_expert_count", 8), "llama.expert_count: it is a mixture"),
        ("llama", ("split.count", 3), "part of a split file"),
        ("llama", ("blk.0.attn_q.bias", np.zeros(64, np.float32)), "'blk.0.attn_q.bias'"),
        ("gemma", ("output.weight", np.zeros((272, 64), np.float32)), "no lm_head.weight in GGUF"),
    ],
)
def test_a_feature_that_would_be_computed_wrongly_is_refused(
    write_family_gguf: Writer,
    family_config: Config,
    family_weights: Weights,
    family: str,
    change: tuple[str, Any],
    cause: str,
) -> None:
    config = family_config(family)
    with pytest.raises(UsageError) as caught:
        _with(write_family_gguf, config, family_weights(config), change)
    assert cause in caught.value.cause and caught.value.remedy


def test_a_window_that_the_file_does_not_give_is_missed(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    for family in ("gemma2", "gemma3"):
        config = family_config(family)
        del config["sliding_window"]
        weights = family_weights(config)
        with pytest.raises(StageFailed, match=f"it lacks {family}.attention.sliding_window"):
            read_model(write_family_gguf(config, weights))


def test_metadata_that_contradicts_a_tensor_names_file_tensor_and_both_shapes(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("qwen2")
    weights = family_weights(config)
    with pytest.raises(StageFailed) as caught:
        read_model(write_family_gguf({**config, "intermediate_size": 100}, weights))
    assert caught.value.what == "qwen2.gguf contradicts its metadata"
    assert caught.value.cause.startswith("blk.0.ffn_gate.weight has the shape [96, 64]")


def test_weights_that_are_no_numbers_are_found_when_they_are_read(
    write_family_gguf: Writer, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("llama")
    weights = family_weights(config)
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name][3, 5] = np.nan
    _, tensors, _ = read_model(write_family_gguf(config, weights))
    with pytest.raises(StageFailed) as caught:
        tensors[name].values()
    assert name in caught.value.cause and "llama.gguf" in caught.value.what


def test_thousands_of_damaged_files_give_no_more_than_a_harness_error(
    write_family_gguf: Writer,
    family_config: Config,
    family_weights: Weights,
    fuzz: Callable[..., int],
) -> None:
    config = {**family_config("qwen2"), "vocab_size": 300}
    weights = family_weights(config)
    data = write_family_gguf(config, weights).read_bytes()

    def read(path: Path) -> None:
        for tensor in read_model(path)[1].values():
            tensor.row_values(0, 1)

    refused = fuzz(data, 9000, read, 3000, "damaged.gguf")
    assert 500 < refused < 3000
