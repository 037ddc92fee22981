"""MLC's plain layout: what is written is what MLC reads, and packed weights survive both ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import recipes
from harness.compiler import quantization
from harness.compiler.architectures import FAMILIES, decoder
from harness.compiler.architectures.parameters import SUFFIX, Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.hf_checkpoint import read_model
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.mlc import layout as mlc_layout
from harness.compiler.mlc.checkpoint import open_mlc_checkpoint
from harness.compiler.mlc.forms import FORMS
from harness.compiler.mlc.tensor_cache import read_tensor_cache
from harness.compiler.numerics.evaluate import parameter_values
from harness.compiler.options import CompileOptions
from harness.compiler.packages import package
from harness.compiler.templates.chat_template import write_chat_template
from harness.compiler.tokenization.tokenizer import write_tokenizer
from harness.errors import UsageError
from harness.stages.compile import compile_model

TEMPLATES = Path(__file__).parents[1] / "chat_templates"
MLC_QUANTIZATIONS = sorted(quantization.QUANTIZATIONS.keys() & FORMS.keys())
Model = Callable[..., Checkpoint]


@pytest.fixture
def model(
    write_folder: Callable[..., Path],
    family_config: Callable[[str], dict[str, Any]],
    family_weights: Callable[..., dict[str, Any]],
    tiny_gguf: Path,
) -> Model:
    """A function that makes a tiny model of a family, with the tiny GGUF file's tokenizer."""
    template = (TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8")
    tokenizer = replace(open_checkpoint(tiny_gguf).tokenizer, chat_template=template)

    def make(family: str = "llama", **changes: Any) -> Checkpoint:
        config = {**family_config(family), **changes}
        folder = write_folder(config, family_weights(config), family)
        read, tensors = read_model(folder)
        return Checkpoint(folder, "tiny", family, read, tokenizer, tensors)

    return make


def write_packed(checkpoint: Checkpoint, name: str, folder: Path, **how: Any) -> dict[str, Any]:
    """A package's weights and tokenizer, and what the task `weights` says of them."""
    formats = quantization.find(name).formats(checkpoint, **how)

    def tensors() -> Iterator[tuple[str, Any]]:
        for item in decoder(checkpoint.config).parameters():
            if not isinstance(item, Matrix):
                yield item.name, parameter_values(checkpoint, item)
                continue
            fmt = formats[item.name]
            sources = [checkpoint.tensors[source] for source in item.sources]
            packed = layout.pack(fmt, quantization.store(fmt, sources))
            for part in layout.packed_tensors(fmt, item.rows, item.columns):
                yield item.tensor(part.part), packed[part.part]

    folder.mkdir()
    write_tokenizer(checkpoint.tokenizer, folder)
    write_chat_template(checkpoint.tokenizer, folder)
    package.write_weights(folder, tensors(), {})
    return {
        "config": checkpoint.config.to_json(),
        "formats": {matrix: str(fmt) for matrix, fmt in formats.items()},
        "tokens": {"bos": 1, "eos": [2], "padding": 2},
        "chat_template": checkpoint.tokenizer.chat_template,
    }


def write_mlc(checkpoint: Checkpoint, name: str, folder: Path, **how: Any) -> Path:
    """The folder for MLC of a model that was packed before."""
    facts = write_packed(checkpoint, name, folder / "packed", **how)
    mlc_layout.write(
        folder / "mlc",
        folder / "packed",
        facts,
        name="tiny",
        quantization=name,
        context=128,
        prefill_chunk=32,
        progress=lambda done, total, unit: None,
    )
    return folder / "mlc"


CASES = [("llama", name) for name in MLC_QUANTIZATIONS]
CASES += [(family, name) for family in FAMILIES for name in ("q4f16_0", "q4bf16_1")]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_packed_weights_survive_the_way_to_mlc_and_back(
    model: Model, tmp_path: Path, family: str, name: str
) -> None:
    source = model(family)
    folder = write_mlc(source, name, tmp_path)
    back = open_mlc_checkpoint(folder)
    assert back.config == replace(source.config, context_window=128)
    assert back.tensors.keys() == source.tensors.keys()
    write_packed(back, name, tmp_path / "again")
    first, second = (read_tensor_cache(tmp_path / part) for part in ("packed", "again"))
    assert first.keys() == second.keys()
    dtype = FORMS[name].dtype
    for item in decoder(source.config).parameters():
        if isinstance(item, Matrix):
            names = [k for k in first if k.startswith(f"{item.name}.") and k.endswith(SUFFIX)]
            assert names
            for key in names:
                assert np.array_equal(first[key].values, second[key].values), key
        else:
            # MLC has these in the quantization's type.
            rounded = layout.widen(layout.narrow(first[item.name].values, dtype), dtype)
            assert np.array_equal(rounded, second[item.name].values), item.name


def unpacked(words: Any, bits: int) -> Any:
    """The integers of MLC's words: of each the lowest bits first."""
    each = 32 // bits
    shifts = np.arange(each, dtype=np.uint32) * np.uint32(bits)
    return (words[..., None] >> shifts & np.uint32((1 << bits) - 1)).reshape(len(words), -1)


@pytest.mark.parametrize(
    ("name", "bits", "group", "columns_first"),
    [
        ("q3f16_1", 3, 40, False),
        ("q4f16_0", 4, 32, True),
        ("q4f16_1", 4, 32, False),
        ("q8f16_1", 8, 32, False),
    ],
)
def test_integers_lie_in_words_as_mlc_packs_them(
    model: Model, tmp_path: Path, name: str, bits: int, group: int, columns_first: bool
) -> None:
    source = model()
    tensors = read_tensor_cache(write_mlc(source, name, tmp_path))
    largest = 2 ** (bits - 1) - 1
    for matrix, by_columns in (
        ("model.layers.0.mlp.down_proj", columns_first),
        ("model.embed_tokens", False),
        ("lm_head", columns_first),
    ):
        words, scales = (tensors[f"{matrix}.{part}"].values for part in ("q_weight", "q_scale"))
        assert words.dtype == np.uint32 and scales.dtype == np.float16
        if by_columns:
            words, scales = words.T, scales.T
        values = source.tensors[f"{matrix}.weight"].values()
        rows, columns = values.shape
        groups = -(-columns // group)
        assert words.shape == (rows, groups * group * bits // 32 if bits != 3 else groups * 4)
        assert scales.shape == (rows, groups)
        integers = unpacked(words, bits)[:, : groups * group].astype(np.float32) - largest
        found = integers.reshape(rows, groups, group) * scales.astype(np.float32)[..., None]
        error = np.abs(found.reshape(rows, -1)[:, :columns] - values)
        step = np.repeat(scales.astype(np.float32), group, axis=1)[:, :columns]
        assert (error <= step * 0.51 + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "dtypes"), [("q4bf16_1", {"uint32", "bfloat16"}), ("q4f32_1", {"uint32", "float32"})]
)
def test_mlcs_runtime_reads_what_was_written(
    model: Model, tmp_path: Path, name: str, dtypes: set[str]
) -> None:
    tvm = pytest.importorskip("tvm")
    folder = write_mlc(model("gemma"), name, tmp_path)
    records = read_tensor_cache(folder)
    cpu = tvm.cpu()
    tvm.get_global_func("vm.builtin.tensor_cache.load")(str(folder), cpu.dlpack_device_type(), 0)
    loaded = tvm.get_global_func("vm.builtin.param_array_from_cache_by_name")(list(records))
    tvm.get_global_func("vm.builtin.tensor_cache.clear")()
    assert len(loaded) == len(records)
    for tensor, record in zip(loaded, records.values(), strict=True):
        assert str(tensor.dtype) == record.dtype
        assert tensor.numpy().tobytes() == record.values.tobytes()
    assert {str(tensor.dtype) for tensor in loaded} == dtypes


def test_norms_of_gemma_have_their_one_and_gemma_3_has_mlcs_names(
    model: Model, tmp_path: Path
) -> None:
    source = model("gemma3")
    tensors = read_tensor_cache(write_mlc(source, "q0f32", tmp_path))
    prefix = "language_model.model.layers.0"
    for norm in ("input_layernorm", "self_attn.q_norm", "post_feedforward_layernorm"):
        own = source.tensors[f"model.layers.0.{norm}.weight"].values()
        assert np.array_equal(tensors[f"{prefix}.{norm}.weight"].values, own + 1)
    for part in "qkv":
        own = source.tensors[f"model.layers.0.self_attn.{part}_proj.weight"].values()
        assert np.array_equal(tensors[f"{prefix}.self_attn.{part}_proj.weight"].values, own)
    assert not any("qkv" in name for name in tensors)


def described(folder: Path) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads((folder / "mlc-chat-config.json").read_text())
    return document


def test_the_folder_has_what_mlcs_reader_wants_and_nothing_of_ours(
    model: Model, tmp_path: Path
) -> None:
    folder = write_mlc(model("qwen3"), "q4f16_1", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "mlc-chat-config.json",
        "ndarray-cache.json",
        "params_shard_0.bin",
        "tensor-cache.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    caches = [(folder / f"{kind}-cache.json").read_bytes() for kind in ("tensor", "ndarray")]
    assert caches[0] == caches[1]
    config = described(folder)
    assert (config["model_type"], config["quantization"]) == ("qwen3", "q4f16_1")
    assert config["model_config"]["context_window_size"] == 128
    assert config["conv_template"]["roles"]["user"] == "<|im_start|>user"
    assert config["conv_template"]["stop_token_ids"] == [2]
    assert config["eos_token_id"] == [2]
    assert config["tokenizer_info"] == {
        "token_postproc_method": "byte_level",
        "prepend_space_in_encode": False,
        "strip_space_in_decode": False,
    }
    assert open_checkpoint(folder).tokenizer.chat_template == model("qwen3").tokenizer.chat_template


def test_a_model_without_a_template_has_messages_as_they_are(model: Model, tmp_path: Path) -> None:
    source = model()
    plain = replace(source, tokenizer=replace(source.tokenizer, chat_template=None))
    conversation = described(write_mlc(plain, "q0f16", tmp_path))["conv_template"]
    assert conversation["roles"]["user"] == conversation["roles"]["assistant"] == ""
    assert conversation["seps"] == [""]
    assert conversation["name"] == "LM"


def test_an_embedding_in_float16_is_what_mlc_calls_q4f16_2(model: Model, tmp_path: Path) -> None:
    source = model("gemma2")
    folder = write_mlc(source, "q4f16_1", tmp_path, embedding="f16")
    assert described(folder)["quantization"] == "q4f16_2"
    assert "model.embed_tokens.weight" in read_tensor_cache(folder)
    assert open_mlc_checkpoint(folder).tensors["model.embed_tokens.weight"].kind == "F16"


@pytest.mark.parametrize(
    ("family", "changes", "name", "how", "what"),
    [
        ("llama", {"intermediate_size": 128}, "q4f16_1", {"group_size": 64}, "MLC has no form"),
        ("llama", {}, "q4f16_1", {"embedding": "q8"}, "MLC has no form"),
        (
            "llama",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "q4f16_1",
            {},
            "MLC's llama cannot be this model",
        ),
    ],
)
def test_what_mlc_has_no_place_for_is_one_error(
    model: Model,
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    name: str,
    how: dict[str, Any],
    what: str,
) -> None:
    with pytest.raises(UsageError, match=what) as info:
        write_mlc(model(family, **changes), name, tmp_path, **how)
    assert info.value.remedy.startswith("--layout packed")
    assert not (tmp_path / "mlc").exists()


def test_a_template_that_cannot_be_expressed_is_refused_by_name(
    model: Model, tmp_path: Path
) -> None:
    source = model()
    trimming = "{% for m in messages %}{{ m.role }}:{{ m.content | trim }}\n{% endfor %}"
    other = replace(source, tokenizer=replace(source.tokenizer, chat_template=trimming))
    with pytest.raises(UsageError, match="the chat template of tiny"):
        write_mlc(other, "q4f16_1", tmp_path)


def test_compile_makes_a_package_for_mlc_that_is_a_source_again(workspace: Path) -> None:
    golden = Path(__file__).parents[1] / "goldens" / "gemma-a"
    recipe = recipes.find(str(golden), workspace)
    flags = {"layout": "mlc", "quantization": "q4bf16_0", "context": 64, "prefill_chunk": 32}
    made = compile_model(recipe, CompileOptions.of(recipe, flags), (), workspace)
    found = package.read_package(made.path, verify=True)
    assert (found.facts["layout"], found.abis, found.facts["memory"]) == ("mlc", (), None)
    assert not (made.path / "lib").exists()
    source, back = open_checkpoint(golden), open_checkpoint(made.path)
    assert back.config == replace(source.config, context_window=64)
    assert back.tokenizer.tokens == source.tokenizer.tokens
    assert back.tokenizer.eos_token_id == source.tokenizer.eos_token_id
    info = described(made.path)["tokenizer_info"]
    assert info["token_postproc_method"] == "byte_fallback"
    for name, tensor in back.tensors.items():
        difference = np.abs(tensor.values() - source.tensors[name].values())
        assert difference.mean() < 0.1 * np.abs(source.tensors[name].values()).mean() + 1e-3
    again = compile_model(recipe, CompileOptions.of(recipe, flags), (), workspace)
    assert again.path == made.path


def test_a_memory_budget_is_nothing_without_a_library(workspace: Path) -> None:
    recipe = recipes.find("smollm2-135m-instruct", workspace)
    with pytest.raises(UsageError, match="--memory-budget"):
        CompileOptions.of(recipe, {"layout": "mlc", "memory_budget": 100})
