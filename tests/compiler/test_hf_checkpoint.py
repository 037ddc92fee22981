from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from harness.compiler.architectures import FAMILIES
from harness.compiler.checkpoints.hf_checkpoint import read_model
from harness.compiler.checkpoints.hf_config import read_config
from harness.compiler.model_config import RopeScaling
from harness.errors import StageFailed, UsageError

LLAMA3 = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
Folder = Callable[..., Path]
Config = Callable[[str], dict[str, Any]]
Weights = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(write_folder: Folder, family_config: Config, family_weights: Weights) -> Folder:
    """A function that writes a tiny model of a family and changes its config.json afterwards."""

    def write(family: str, *, without: tuple[str, ...] = (), **changes: Any) -> Path:
        config = family_config(family)
        weights = family_weights(config)
        kept = {key: value for key, value in config.items() if key not in without}
        return write_folder({**kept, **changes}, weights)

    return write


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_a_family_is_read(
    write_folder: Folder, family_config: Config, family_weights: Weights, family: str
) -> None:
    config = family_config(family)
    weights = family_weights(config)
    read, tensors = read_model(write_folder(config, weights))
    assert read.family == family
    assert tensors.keys() == weights.keys()
    for name, values in weights.items():
        assert tensors[name].kind == "F32" and tensors[name].shape == values.shape
        assert np.array_equal(tensors[name].values(), values)
    table = tensors["model.embed_tokens.weight"]
    assert np.array_equal(table.row_values(5, 9), weights[table.name][5:9])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_exactly(
    write_folder: Folder, family_config: Config, family_weights: Weights, dtype: Any
) -> None:
    config = family_config("llama")
    weights = {name: values.astype(dtype) for name, values in family_weights(config).items()}
    _, tensors = read_model(write_folder(config, weights))
    for name, values in weights.items():
        assert np.array_equal(tensors[name].values(), values.astype(np.float32))


def test_what_transformers_4_and_5_write_is_the_same_model(folder: Folder) -> None:
    older = {
        "llama": {"rope_theta": 5e5, "rope_scaling": LLAMA3},
        "gemma3": {"rope_scaling": {"factor": 8.0, "type": "linear"}},
        "gemma2": {"sliding_window": 16},
    }
    newer = {
        "llama": {"rope_parameters": {"rope_theta": 5e5, **LLAMA3}},
        "gemma3": {
            "rope_parameters": {
                "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
            },
            "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
            "dtype": "bfloat16",
        },
        "gemma2": {
            "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
            "layer_types": ["sliding_attention", "full_attention"],
        },
    }
    gone = ("rope_theta", "rope_local_base_freq", "sliding_window_pattern", "torch_dtype")
    for family, changes in older.items():
        before, _ = read_model(folder(family, **changes))
        after, _ = read_model(folder(family, without=gone, **newer[family]))
        assert before == after, family


def test_rotary_positions_and_windows_are_the_configurations(folder: Folder) -> None:
    config, _ = read_model(folder("llama", rope_theta=5e5, rope_scaling=LLAMA3))
    assert config.rope.theta == 5e5
    assert config.rope.scaling == RopeScaling("llama3", 32.0, 1.0, 4.0, 8192)
    config, _ = read_model(folder("gemma3"))
    assert config.rope.theta == 1e6 and config.local_rope is not None
    assert config.local_rope.theta == 1e4
    assert config.windowed_layers == (True, True, True, True, True, False, True)
    assert config.sliding_window == 16 and config.query_scale == 0.25
    config, _ = read_model(folder("gemma2"))
    assert config.windowed_layers == (True, False)
    assert (config.attention_softcap, config.final_softcap) == (50.0, 30.0)
    config, _ = read_model(folder("qwen2", sliding_window=64, use_sliding_window=False))
    assert config.windowed_layers == () and config.attention_bias
    asked = {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1}
    config, _ = read_model(folder("qwen2", **asked))
    assert config.windowed_layers == (False, True) and config.sliding_window == 64


def _multimodal(config: dict[str, Any], weights: dict[str, Any], prefix: str) -> Any:
    # transformers leaves out of a nested configuration what its class has by default.
    text = {
        key: config[key]
        for key in (
            *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
            *("num_key_value_heads", "head_dim", "vocab_size", "sliding_window"),
        )
    }
    text["model_type"] = "gemma3_text"
    document = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {"hidden_size": 32},
    }
    named = {f"{prefix}{name.removeprefix('model.')}": w for name, w in weights.items()}
    parts = "model." if prefix.startswith("model.") else ""
    named[f"{parts}vision_tower.vision_model.embeddings.position_ids"] = np.arange(4)
    named[f"{parts}multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(8, np.float32)
    return document, named


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_multimodal_checkpoint_is_a_model(
    write_folder: Folder, family_config: Config, family_weights: Weights, prefix: str
) -> None:
    config = family_config("gemma3")
    weights = family_weights(config)
    read, tensors = read_model(write_folder(*_multimodal(config, weights, prefix)))
    assert read.context_window == 131072 and read.rms_norm_eps == 1e-6
    assert read.tie_word_embeddings and read.query_scale == 1 / 16
    assert read.windowed_layers == (True,) * 5 + (False, True)
    assert read.rope.theta == 1e6
    assert tensors.keys() == weights.keys()
    for name, values in weights.items():
        assert np.array_equal(tensors[name].values(), values)


def test_shards_with_their_index_are_one_model(folder: Folder) -> None:
    path = folder("qwen3")
    whole = safetensors.numpy.load_file(path / "model.safetensors")
    places = {
        name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(whole)
    }
    for shard in set(places.values()):
        part = {name: values for name, values in whole.items() if places[name] == shard}
        safetensors.numpy.save_file(part, path / shard)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    (path / "model.safetensors").unlink()
    _, tensors = read_model(path)
    assert all(np.array_equal(tensors[name].values(), values) for name, values in whole.items())
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(StageFailed, match=r"model-00002-of-00002\.safetensors"):
        read_model(path)


def test_buffers_and_a_copy_of_the_tied_head_do_no_harm(
    write_folder: Folder, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("gemma")
    weights = family_weights(config)
    stored = {
        **weights,
        "lm_head.weight": weights["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    }
    _, tensors = read_model(write_folder(config, stored))
    assert tensors.keys() == weights.keys()
    stored["lm_head.weight"][100, 3] += 1
    with pytest.raises(StageFailed, match="which differs"):
        read_model(write_folder(config, stored))


@pytest.mark.parametrize(
    ("family", "changes", "cause"),
    [
        ("llama", {"model_type": "mixtral"}, "knows: gemma, gemma2, gemma3_text"),
        ("llama", {"model_type": "llava", "text_config": {"model_type": "llama"}}, "knows: gemma"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "generates no text"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("gemma", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("llama", {"num_local_experts": 8}, "mixture of experts"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("gemma2", {"hidden_activation": "relu"}, "hidden_activation is 'relu'"),
        ("gemma2", {"hidden_act": "silu"}, "hidden_act is 'silu'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "'dynamic'"),
        ("qwen3", {"rope_parameters": {"rope_type": "longrope"}}, "'longrope'"),
        ("llama", {"partial_rotary_factor": 0.5}, "rotates 0.5"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "each type of layers"),
        ("gemma2", {"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
    ],
)
def test_a_form_that_would_be_computed_wrongly_is_refused_by_name(
    folder: Folder, family: str, changes: dict[str, Any], cause: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_model(folder(family, **changes))
    assert cause in caught.value.cause and caught.value.remedy


def test_the_first_files_of_gemma_mean_the_tanh_form_by_gelu(folder: Folder) -> None:
    changes = {"hidden_act": "gelu", "hidden_activation": None}
    assert read_model(folder("gemma", **changes))[0].family == "gemma"


@pytest.mark.parametrize(
    ("family", "changes", "cause"),
    [
        ("llama", {"model_type": None}, "lacks model_type"),
        ("llama", {"model_type": ["llama"]}, "model_type is ['llama']"),
        ("llama", {"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM"),
        ("llama", {"architectures": "LlamaForCausalLM"}, "architectures is"),
        ("llama", {"hidden_size": None}, "lacks hidden_size"),
        ("llama", {"hidden_size": "64"}, "hidden_size is '64'"),
        ("llama", {"hidden_size": -64}, "hidden_size is -64"),
        ("llama", {"hidden_size": True}, "hidden_size is True"),
        ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers is"),
        ("llama", {"vocab_size": 10**400}, "vocab_size is"),
        ("llama", {"rms_norm_eps": math.nan}, "rms_norm_eps is nan"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ("llama", {"rope_theta": math.inf}, "rope_theta is inf"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ("llama", {"num_key_value_heads": 3}, "4 query heads, 3 key heads"),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "lacks rope_scaling.factor"),
        ("llama", {"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, "a high one of 1.0"),
        ("gemma3", {"layer_types": ["full_attention"]}, "no list of 7 layers"),
        ("gemma2", {"sliding_window": None}, "lacks sliding_window"),
        ("gemma3", {"text_config": 5}, "text_config is 5"),
        ("gemma3", {"text_config": {"hidden_size": 64}}, "lacks model_type"),
    ],
)
def test_a_configuration_that_makes_no_model_is_one_clear_error(
    folder: Folder, family: str, changes: dict[str, Any], cause: str
) -> None:
    with pytest.raises(StageFailed) as caught:
        read_model(folder(family, **changes))
    assert cause in caught.value.cause
    assert "config.json" in caught.value.what and caught.value.remedy


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": ' * 100_000, "\xff"])
def test_a_config_json_that_is_none_is_one_clear_error(folder: Folder, text: str) -> None:
    path = folder("llama")
    (path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StageFailed, match=r"cannot read config\.json"):
        read_model(path)


def test_a_configuration_that_contradicts_a_tensor_names_file_tensor_and_both_shapes(
    folder: Folder,
) -> None:
    with pytest.raises(StageFailed) as caught:
        read_model(folder("llama", intermediate_size=100))
    assert caught.value.what == "model.safetensors contradicts config.json"
    assert "model.layers.0.mlp.gate_proj.weight" in caught.value.cause
    assert "[96, 64]" in caught.value.cause and "[100, 64]" in caught.value.cause


def test_missing_and_unknown_tensors_are_named(
    write_folder: Folder, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("llama")
    weights = family_weights(config)
    missing = {n: w for n, w in weights.items() if n != "model.layers.1.mlp.up_proj.weight"}
    with pytest.raises(StageFailed, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        read_model(write_folder(config, missing))
    extra = {**weights, "model.layers.0.mlp.gate_proj.bias": np.zeros(96, np.float32)}
    with pytest.raises(UsageError, match=r"model\.layers\.0\.mlp\.gate_proj\.bias"):
        read_model(write_folder(config, extra))
    with pytest.raises(StageFailed, match=r"lm_head\.weight"):
        tied = {name: values for name, values in weights.items() if name != "lm_head.weight"}
        read_model(write_folder(config, tied))


def test_a_type_that_is_not_read_is_named(
    write_folder: Folder, family_config: Config, family_weights: Weights
) -> None:
    config = family_config("llama")
    weights = family_weights(config)
    for dtype in (np.int8, np.float64, np.uint8):
        name = "model.layers.0.mlp.up_proj.weight"
        with pytest.raises(UsageError, match=r"up_proj\.weight in model\.safetensors"):
            read_model(write_folder(config, {**weights, name: weights[name].astype(dtype)}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_no_numbers_are_found_when_they_are_read(
    write_folder: Folder, family_config: Config, family_weights: Weights, bad: float, dtype: Any
) -> None:
    config = family_config("llama")
    weights = {name: values.astype(dtype) for name, values in family_weights(config).items()}
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name][3, 5] = bad
    _, tensors = read_model(write_folder(config, weights))
    tensors[name].row_values(4, 64)
    with pytest.raises(StageFailed) as caught:
        tensors[name].values()
    assert name in caught.value.cause and "model.safetensors" in caught.value.what


def test_pickled_weights_are_never_opened(folder: Folder) -> None:
    path = folder("llama")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(UsageError) as caught:
        read_model(path)
    assert "pickled" in caught.value.what and "pytorch_model.bin" in caught.value.cause


def test_a_truncated_file_is_named(folder: Folder) -> None:
    path = folder("llama")
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(StageFailed, match="truncated"):
        read_model(path)


def test_thousands_of_damaged_configurations_give_no_more_than_a_harness_error(
    folder: Folder, fuzz: Callable[..., int]
) -> None:
    path = folder("gemma3", rope_scaling={"type": "linear", "factor": 8.0})
    data = (path / "config.json").read_bytes()
    refused = fuzz(data, len(data), read_config, 2000, "config.json")
    assert 1000 < refused < 2000
