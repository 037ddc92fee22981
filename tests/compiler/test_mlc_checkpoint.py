"""Folders that MLC compiled as checkpoints, in what its own writer makes of random weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.compiler import quantization
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.tokenization.tokenizer import write_tokenizer
from harness.errors import HarnessError, StageFailed, UsageError

HIDDEN, INNER, VOCABULARY, LAYERS = 64, 96, 272, 2
HEADS, KV_HEADS, SIZE = 4, 2, 16
QKV = (HEADS + 2 * KV_HEADS) * SIZE
# MLC's shapes of a Llama's matrices, [rows, columns].
LAYER = {
    "self_attn.qkv_proj": (QKV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * SIZE),
    "mlp.gate_up_proj": (2 * INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
MATRICES = {
    "model.embed_tokens": (VOCABULARY, HIDDEN),
    "lm_head": (VOCABULARY, HIDDEN),
    **{f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in LAYER.items()},
}
NORMS = [
    *(
        f"model.layers.{i}.{n}_layernorm"
        for i in range(LAYERS)
        for n in ("input", "post_attention")
    ),
    "model.norm",
]
CONFIG: dict[str, Any] = {
    "version": "0.1.0",
    "model_type": "llama",
    "quantization": "q4f16_1",
    "model_config": {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "rms_norm_eps": 1e-05,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "position_embedding_base": 500000,
        "rope_scaling": None,
        "context_window_size": 2048,
        "prefill_chunk_size": 128,
        "num_key_value_heads": KV_HEADS,
        "head_dim": SIZE,
        "tensor_parallel_shards": 1,
    },
    "vocab_size": VOCABULARY,
    "eos_token_id": 2,
    "conv_template": {"name": "llama-3", "stop_token_ids": [0, 2]},
}
Array = npt.NDArray[Any]
Tensors = dict[str, Array]
Written = Callable[..., tuple[Path, Tensors]]


def random_tensors(bits: int, group: int, scale: str, columns_first: bool = False) -> Tensors:
    """Words of any integers and scales that no rounding would find again."""
    rng = np.random.default_rng(bits)
    each = 32 // bits
    found: Tensors = {}
    for name, (rows, columns) in MATRICES.items():
        groups = -(-columns // group)
        integers = rng.integers(0, 2**bits - (bits == 8), (rows, groups * group // each, each))
        shifts = np.arange(each, dtype=np.uint64) * np.uint64(bits)
        words = (integers.astype(np.uint64) << shifts).sum(-1).astype(np.uint32)
        scales = rng.uniform(0.001, 0.1, (rows, groups)).astype(scale)
        turned = columns_first and name != "model.embed_tokens"
        found[f"{name}.q_weight"] = np.ascontiguousarray(words.T) if turned else words
        found[f"{name}.q_scale"] = np.ascontiguousarray(scales.T) if turned else scales
    found |= {f"{name}.weight": rng.normal(1, 0.1, HIDDEN).astype(scale) for name in NORMS}
    return found


@pytest.fixture
def written(tmp_path: Path, tiny_gguf: Path) -> Written:
    """A function that writes a folder with TVM's own writer."""
    pytest.importorskip("tvm")
    from tvm.contrib.tvmjs import dump_tensor_cache

    tokenizer = open_checkpoint(tiny_gguf).tokenizer

    def write(
        tensors: Tensors | None = None, encode: str = "raw", **changes: Any
    ) -> tuple[Path, Tensors]:
        folder, tensors = tmp_path / "mlc", tensors or random_tensors(4, 32, "float16")
        dump_tensor_cache(tensors, str(folder), encode_format=encode, show_progress=False)
        (folder / "mlc-chat-config.json").write_text(json.dumps({**CONFIG, **changes}))
        write_tokenizer(tokenizer, folder)
        return folder, tensors

    return write


def expected(tensors: Mapping[str, Array], name: str, bits: int, group: int, by: str) -> Array:
    """The values of one of MLC's matrices."""
    words, scales = tensors[f"{name}.q_weight"], tensors[f"{name}.q_scale"]
    if by == "columns" and name != "model.embed_tokens":
        words, scales = words.T, scales.T
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    integers = words[..., None] >> shifts & np.uint32(2**bits - 1)
    centred = integers.reshape(*scales.shape, group).astype(np.float32) - (2 ** (bits - 1) - 1)
    values: Array = centred * scales.astype(np.float32)[..., None]
    values = values.reshape(len(words), -1)
    return values[:, : MATRICES[name][1]]


@pytest.mark.parametrize(
    ("name", "bits", "group", "scale", "by"),
    [
        ("q3f16_1", 3, 40, "float16", "rows"),
        ("q3f16_0", 3, 40, "float16", "columns"),
        ("q4f16_0", 4, 32, "float16", "columns"),
        ("q4f16_1", 4, 32, "float16", "rows"),
        ("q4f32_1", 4, 32, "float32", "rows"),
        ("q8f16_1", 8, 32, "float16", "rows"),
    ],
)
def test_a_folder_is_read_by_hugging_faces_names_and_kept_bit_for_bit(
    written: Written, name: str, bits: int, group: int, scale: str, by: str
) -> None:
    folder, tensors = written(
        random_tensors(bits, group, scale, by == "columns"), quantization=name
    )
    checkpoint = open_checkpoint(folder)
    assert checkpoint.architecture == "llama"
    assert checkpoint.config.rope.theta == 500000
    assert checkpoint.config.context_window == 2048
    attn = "model.layers.1.self_attn"
    parts = {
        f"{attn}.q_proj.weight": (f"{attn}.qkv_proj", 0, HEADS * SIZE),
        f"{attn}.v_proj.weight": (f"{attn}.qkv_proj", QKV - KV_HEADS * SIZE, QKV),
        "model.layers.0.mlp.up_proj.weight": ("model.layers.0.mlp.gate_up_proj", INNER, 2 * INNER),
        "model.layers.0.mlp.down_proj.weight": ("model.layers.0.mlp.down_proj", 0, HIDDEN),
        "model.embed_tokens.weight": ("model.embed_tokens", 0, VOCABULARY),
        "lm_head.weight": ("lm_head", 0, VOCABULARY),
    }
    for ours, (theirs, begin, end) in parts.items():
        tensor = checkpoint.tensors[ours]
        values = expected(tensors, theirs, bits, group, by)[begin:end]
        assert np.array_equal(tensor.values(), values)
        assert np.array_equal(tensor.row_values(3, 7), values[3:7])
        fmt = quantization.find("q4f16_gguf").formats(checkpoint)[theirs]
        assert str(fmt) == tensor.kind
        kept = quantization.store(fmt, [tensor])
        columns = MATRICES[theirs][1]
        assert np.array_equal(layout.dequantize(fmt, kept)[:, :columns], values)
        turned = by == "columns" and theirs != "model.embed_tokens"
        for part in ("q_scale", "q_weight") if bits < 8 else ("q_scale",):
            stored = tensors[f"{theirs}.{part}"]
            assert np.array_equal(kept[part], (stored.T if turned else stored)[begin:end])
    norm = checkpoint.tensors["model.norm.weight"].values()
    assert np.array_equal(norm, tensors["model.norm.weight"].astype(np.float32))


def test_what_was_halved_on_its_way_to_the_disk_is_read_as_it_is(written: Written) -> None:
    folder, tensors = written(
        random_tensors(4, 32, "float32"), "f32-to-bf16", quantization="q4f32_1"
    )
    tensor = open_checkpoint(folder).tensors["lm_head.weight"]
    kept = quantization.store(WeightFormat.Q4_SYM_F32, [tensor])
    assert np.array_equal(layout.dequantize(WeightFormat.Q4_SYM_F32, kept), tensor.values())
    scales = kept["q_scale"]
    assert scales.dtype == np.float32 and not (scales.view(np.uint32) & 0xFFFF).any()
    assert np.allclose(scales, tensors["lm_head.q_scale"], rtol=2**-8)


def test_the_cache_may_have_its_older_name(written: Written) -> None:
    folder, _ = written()
    (folder / "tensor-cache.json").rename(folder / "ndarray-cache.json")
    assert open_checkpoint(folder).tensors["lm_head.weight"].kind == "q4_sym_f16"


def test_an_answer_ends_with_the_conversations_stop_tokens(written: Written) -> None:
    folder, _ = written()
    tokenizer = open_checkpoint(folder).tokenizer
    assert set(tokenizer.end_token_ids) == {0, 2}


Change = Callable[[Any], None]


def shard(index: int = 0) -> Callable[[Any], Any]:
    return lambda document: document["records"][index]


def first(document: Any) -> Any:
    return document["records"][0]["records"][0]


BAD_CACHES: dict[str, tuple[Change, str]] = {
    "up": (lambda d: shard()(d).update(dataPath="../params_shard_0.bin"), "names the shard"),
    "absolute": (lambda d: shard()(d).update(dataPath="/etc/passwd"), "names the shard"),
    "other file": (lambda d: shard()(d).update(dataPath="tokenizer.json"), "names the shard"),
    "no name": (lambda d: shard()(d).update(dataPath=None), "names the shard"),
    "not there": (lambda d: shard()(d).update(dataPath="params_shard_7.bin"), "No such file"),
    "twice": (lambda d: d["records"].append(shard()(d)), "twice"),
    "size": (lambda d: shard()(d).update(nbytes=7), "listed are 7"),
    "md5": (lambda d: shard()(d).update(md5sum="0" * 32), "MD5"),
    "format": (lambda d: shard()(d).update(format="zip"), "has the format 'zip'"),
    "records": (lambda d: d.update(records={}), "no list of objects"),
    "inner records": (lambda d: shard()(d).update(records=[3]), "no list of objects"),
    "offset": (lambda d: first(d).update(byteOffset=-4), "bytes at -4"),
    "far offset": (lambda d: first(d).update(byteOffset=1 << 62), "bytes at"),
    "nbytes": (lambda d: first(d).update(nbytes=1 << 62), "bytes at"),
    "small nbytes": (lambda d: first(d).update(nbytes=4), "its shape"),
    "true": (lambda d: first(d).update(byteOffset=True), "bytes at True"),
    "dtype": (lambda d: first(d).update(dtype="object"), "has the type 'object'"),
    "dtype list": (lambda d: first(d).update(dtype=["f4"]), "has the type"),
    "shape": (lambda d: first(d).update(shape=[-1, 4]), "has the shape"),
    "deep shape": (lambda d: first(d).update(shape=[1] * 40), "has the shape"),
    "record format": (lambda d: first(d).update(format="lz4"), "has the format 'lz4'"),
    "name": (lambda d: first(d).update(name=3), "name is 3"),
    "same name": (lambda d: first(d).update(name="lm_head.q_scale"), "twice"),
}


def changed(path: Path, change: Change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("case", BAD_CACHES)
def test_a_cache_that_lies_is_one_error(written: Written, case: str) -> None:
    change, cause = BAD_CACHES[case]
    folder, _ = written()
    changed(folder / "tensor-cache.json", change)
    with pytest.raises(StageFailed) as info:
        open_checkpoint(folder)
    assert cause in info.value.cause and info.value.remedy


BAD_CONFIGS: dict[str, tuple[Change, type[HarnessError], str]] = {
    "family": (lambda d: d.update(model_type="gpt2"), UsageError, "the compiler knows"),
    "type": (lambda d: d.update(model_type=None), UsageError, "the compiler knows"),
    "awq": (lambda d: d.update(quantization="q4f16_autoawq"), UsageError, "known: q0f32"),
    "no model": (lambda d: d.pop("model_config"), StageFailed, "no model_config"),
    "kwargs": (lambda d: d["model_config"].update(kwargs=3), StageFailed, "no object"),
    "hidden": (lambda d: d["model_config"].update(hidden_size=32), StageFailed, "makes it"),
    "no context": (
        lambda d: d["model_config"].pop("context_window_size"),
        StageFailed,
        "lacks context_window_size",
    ),
    "layers": (lambda d: d["model_config"].update(num_hidden_layers=3), StageFailed, "lacks the"),
    "fewer": (lambda d: d["model_config"].update(num_hidden_layers=1), UsageError, "has not"),
    "float16 norms": (
        lambda d: d.update(quantization="q4bf16_1"),
        StageFailed,
        "makes it bfloat16",
    ),
    "columns": (
        lambda d: d["model_config"].update(hidden_size=48),
        UsageError,
        "48 must be a multiple of 32",
    ),
    "scaling": (
        lambda d: d["model_config"].update(rope_scaling={"rope_type": "yarn", "factor": 2.0}),
        UsageError,
        "'yarn'",
    ),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_configuration_that_does_not_fit_is_one_error(written: Written, case: str) -> None:
    change, kind, cause = BAD_CONFIGS[case]
    folder, _ = written()
    changed(folder / "mlc-chat-config.json", change)
    with pytest.raises(kind) as info:
        open_checkpoint(folder)
    assert cause in info.value.cause and info.value.remedy


@pytest.mark.parametrize(
    ("bits", "group", "name", "part", "value", "cause"),
    [
        (4, 32, "q4f16_1", "q_scale", np.nan, "NaN"),
        (4, 32, "q4f16_1", "q_scale", np.inf, "NaN"),
        (3, 40, "q3f16_1", "q_weight", 1 << 31, "more than ten"),
        (8, 32, "q8f16_1", "q_weight", 255, "255"),
    ],
)
def test_words_that_stand_for_no_number_are_one_error_when_they_are_read(
    written: Written, bits: int, group: int, name: str, part: str, value: float, cause: str
) -> None:
    tensors = random_tensors(bits, group, "float16")
    tensors[f"lm_head.{part}"][5, 1] = value
    folder, _ = written(tensors, quantization=name)
    tensor = open_checkpoint(folder).tensors["lm_head.weight"]
    tensor.row_values(0, 5)
    for read in (tensor.values, tensor.stored):
        with pytest.raises(StageFailed, match="no numbers") as info:
            read()
        assert cause in info.value.cause and "lm_head" in info.value.cause


def test_norms_that_are_no_numbers_are_one_error(written: Written) -> None:
    tensors = random_tensors(4, 32, "float16")
    tensors["model.norm.weight"][3] = np.nan
    folder, _ = written(tensors)
    with pytest.raises(StageFailed, match="no numbers"):
        open_checkpoint(folder).tensors["model.norm.weight"].values()


def test_a_truncated_shard_is_one_error(written: Written) -> None:
    folder, _ = written()
    path = folder / "params_shard_0.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageFailed, match=r"params_shard_0\.bin"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["tensor-cache.json", "mlc-chat-config.json"])
def test_hundreds_of_damaged_descriptions_give_no_more_than_a_harness_error(
    written: Written, fuzz: Callable[..., int], name: str
) -> None:
    folder, _ = written()
    data = (folder / name).read_bytes()

    def read(path: Path) -> Checkpoint:
        checkpoint = open_checkpoint(path.parent)
        checkpoint.tensors["model.norm.weight"].values()
        return checkpoint

    assert 500 < fuzz(data, min(len(data), 3000), read, 1000, f"mlc/{name}") <= 1000


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1, 3, 2**31, 2**40, 2**63, 2**64, 1e308, "", "x", "../x", [], [[]], {}]
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON document with each of its keys."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(["tensor-cache.json", "mlc-chat-config.json"]))
def test_any_value_of_a_description_may_be_another(
    compiled_folder: Path, data: st.DataObject, name: str
) -> None:
    path = compiled_folder / name
    text = path.read_text()
    document = json.loads(text)
    container, key = data.draw(st.sampled_from(list(places(document))))
    container[key] = data.draw(VALUES)
    path.write_text(json.dumps(document))
    # What is refused is refused with a HarnessError; anything else fails here.
    with contextlib.suppress(HarnessError):
        open_checkpoint(compiled_folder).tensors["model.norm.weight"].values()
    path.write_text(text)


@pytest.fixture
def compiled_folder(written: Written) -> Path:
    return written()[0]
