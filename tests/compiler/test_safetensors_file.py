from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from harness.compiler.checkpoints.safetensors_file import MAX_HEADER_BYTES, read_safetensors
from harness.compiler.checkpoints.safetensors_shards import read_shards
from harness.compiler.checkpoints.stored_values import decode
from harness.errors import StageFailed


def _file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(dtype: str = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_reader_agrees_with_the_safetensors_package(tmp_path: Path, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    tensors = {
        "model.embed_tokens.weight": rng.standard_normal((40, 24)).astype(dtype),
        "b": rng.standard_normal(7).astype(dtype),
        "a.cube": rng.standard_normal((2, 3, 4)).astype(dtype),
    }
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    found = read_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        tensor = found[name]
        assert tensor.shape == values.shape
        decoded = decode(tensor.dtype, tensor.data)
        assert decoded.dtype == np.float32
        assert np.array_equal(decoded.reshape(values.shape), values.astype(np.float32))


def test_every_bfloat16_widens_exactly() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    ours = decode("BF16", bits.view(np.uint8)[None])[0]
    theirs = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(ours, theirs, equal_nan=True)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "the file is empty"),
        (b"\x00\x00", "truncated"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "header of 1152921504606846976 bytes"),
        (_file(b"[1, 2]"), "no JSON object"),
        (_file(b"{nonsense"), "not JSON"),
        (_file(b"\xff\xfe"), "not JSON"),
        (_file(b"[" * 100_000), "not JSON"),
        (_file(b'{"a": {}, "a": {}}'), "a name occurs twice"),
        (_file({"a": 5}), "not described by"),
        (_file({"a": _entry("F13")}, bytes(24)), "unknown type 'F13'"),
        (_file({"a": _entry(["F32"])}, bytes(24)), "unknown type"),
        (_file({"a": _entry(shape=[2, -3])}, bytes(24)), "has the shape"),
        (_file({"a": _entry(shape=[2, 3.0])}, bytes(24)), "has the shape"),
        (_file({"a": _entry(shape=[1] * 40)}, bytes(24)), "has the shape"),
        (_file({"a": _entry(shape=[1 << 62, 1 << 62])}, bytes(24)), "24 bytes, its shape"),
        (_file({"a": _entry(offsets=[0])}, bytes(24)), "has the offsets"),
        (_file({"a": _entry(offsets=[24, 0])}, bytes(24)), "-24 bytes, its shape"),
        (_file({"a": _entry(offsets=[0, 20])}, bytes(24)), "20 bytes, its shape"),
        (_file({"a": _entry(offsets=[100, 124])}, bytes(24)), "truncated"),
        (_file({"a": _entry()}, bytes(23)), "truncated"),
        (_file({"a": _entry()}, bytes(25)), "1 bytes before the file"),
        (_file({"a": _entry(), "b": _entry()}, bytes(24)), "overlaps"),
        (_file({"a": _entry(), "b": _entry(offsets=[32, 56])}, bytes(56)), "hole"),
    ],
)
def test_a_file_that_is_not_whole_is_one_clear_error(
    tmp_path: Path, data: bytes, cause: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(StageFailed) as caught:
        read_safetensors(path)
    assert cause in caught.value.cause
    assert "model.safetensors" in caught.value.what and caught.value.remedy


def test_a_header_of_any_real_size_is_read_and_no_larger_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file(b"{}" + b" " * 1_000_000))
    assert read_safetensors(path) == {}
    path.write_bytes(_file(b"{}" + b" " * MAX_HEADER_BYTES))
    with pytest.raises(StageFailed, match="announces a header"):
        read_safetensors(path)


def test_a_tensor_without_elements_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_file({"a": _entry(shape=[1 << 62, 0], offsets=[0, 0])}))
    assert read_safetensors(path)["a"].data.size == 0


def test_thousands_of_damaged_files_give_no_more_than_a_harness_error(
    tmp_path: Path, fuzz: Callable[..., int]
) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {f"layer.{i}.weight": np.ones((4, i + 1), np.float32) for i in range(8)}
    safetensors.numpy.save_file(tensors, path)
    data = path.read_bytes()

    def read(damaged: Path) -> None:
        for tensor in read_safetensors(damaged).values():
            tensor.data.sum()

    refused = fuzz(data, 8 + int.from_bytes(data[:8], "little"), read, 4000, "damaged.safetensors")
    assert 2000 < refused < 4000


def _shards(folder: Path) -> Path:
    names = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}
    for shard in set(names.values()):
        part = {n: np.ones((2, 2), np.float32) for n, place in names.items() if place == shard}
        safetensors.numpy.save_file(part, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": names}))
    return index


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    found = read_shards(_shards(tmp_path))
    assert {name: tensor.path.name for name, tensor in found.items()} == {
        "a": "one.safetensors",
        "b": "two.safetensors",
        "c": "two.safetensors",
    }


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"weight_map": None}, "no weight_map"),
        ({"a": "two.safetensors"}, "'a' is not in"),
        ({"c": "one.safetensors"}, "'c' is in two.safetensors, not in 'one.safetensors'"),
        ({"d": "one.safetensors"}, "'d' is not in one.safetensors"),
        ({"d": "three.safetensors"}, "No such file"),
        ({"d": "../one.safetensors"}, "not beside it"),
        ({"d": "/etc/passwd"}, "not beside it"),
        ({"d": ""}, "not beside it"),
        ({"d": 7}, "No such file"),
    ],
)
def test_an_index_that_contradicts_its_files_is_one_clear_error(
    tmp_path: Path, change: dict[str, Any], cause: str
) -> None:
    index = _shards(tmp_path)
    document = json.loads(index.read_text())
    if "weight_map" in change:
        document = change
    else:
        document["weight_map"] |= change
    index.write_text(json.dumps(document))
    with pytest.raises(StageFailed) as caught:
        read_shards(index)
    assert cause in caught.value.cause and caught.value.remedy


def test_a_tensor_that_the_index_leaves_out_or_that_two_files_have_is_an_error(
    tmp_path: Path,
) -> None:
    index = _shards(tmp_path)
    extra = {name: np.ones((2, 2), np.float32) for name in ("a", "b")}
    safetensors.numpy.save_file(extra, tmp_path / "one.safetensors")
    with pytest.raises(StageFailed, match="'b' is in one"):
        read_shards(index)
    document = json.loads(index.read_text())
    del document["weight_map"]["c"]
    index.write_text(json.dumps(document))
    with pytest.raises(StageFailed, match="'b' is in one"):
        read_shards(index)
