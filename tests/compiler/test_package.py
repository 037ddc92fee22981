from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.compiler.mlc import tensor_cache
from harness.compiler.packages import package
from harness.errors import HarnessError, StageFailed, UsageError

FACTS = {"name": "tiny", "stamp": {"tvm": package.tvm_version(), "targets": {"x86_64": {}}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with one shard and one library."""
    package.write_weights(tmp_path, [("w", np.arange(100, dtype=np.float32))], {"k": 1})
    (tmp_path / "lib/x86_64").mkdir(parents=True)
    (tmp_path / "lib/x86_64/libmodel.so").write_bytes(b"elf")
    package.write_package_json(tmp_path, FACTS)
    return tmp_path


def change(folder: Path, edit: Any) -> None:
    path = folder / package.PACKAGE_JSON
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_a_package_is_read_as_it_was_written(folder: Path) -> None:
    found = package.read_package(folder, verify=True)
    assert found.abis == ("x86_64",) and found.facts["name"] == "tiny"
    files = found.facts["files"]
    assert set(files) == {"tensor-cache.json", "params_shard_0.bin", "lib/x86_64/libmodel.so"}
    assert files["params_shard_0.bin"]["size"] == 400


TENSORS = st.lists(
    hnp.arrays(
        st.sampled_from([np.float32, np.float16, np.int32, np.uint32]),
        hnp.array_shapes(max_dims=3, max_side=7),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(tensors=TENSORS, shard=st.integers(64, 600))
def test_tensors_come_back_from_their_shards(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[np.ndarray], shard: int
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(tensor_cache, "SHARD_BYTES", shard)
        named = [(f"t{index}", tensor) for index, tensor in enumerate(tensors)]
        total = package.write_weights(folder, named, {})
    document = json.loads((folder / package.TENSOR_CACHE).read_text())
    assert document["metadata"]["params"] == [name for name, _ in named]
    found = {}
    for record in document["records"]:
        data = (folder / record["dataPath"]).read_bytes()
        assert len(data) == record["nbytes"] and record["format"] == "raw-shard"
        assert len(data) <= shard or len(record["records"]) == 1
        for entry in record["records"]:
            assert entry["byteOffset"] % 64 == 0
            raw = data[entry["byteOffset"] :][: entry["nbytes"]]
            found[entry["name"]] = np.frombuffer(raw, entry["dtype"]).reshape(entry["shape"])
    assert total == sum(record["nbytes"] for record in document["records"])
    for name, tensor in named:
        assert found[name].tobytes() == tensor.tobytes() and found[name].shape == tensor.shape


def test_a_package_of_another_tvm_is_refused_with_a_remedy(folder: Path) -> None:
    change(folder, lambda document: document["stamp"].update(tvm="0.26.0"))
    with pytest.raises(UsageError, match=r"compiled by TVM 0\.26\.0") as caught:
        package.read_package(folder)
    assert package.tvm_version() in caught.value.cause and "harness compile" in caught.value.remedy


def test_a_folder_that_is_no_package_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no model package"):
        package.read_package(tmp_path)


def test_another_schema_is_refused_by_name(folder: Path) -> None:
    change(folder, lambda document: document.update(schema="harness.package/1"))
    with pytest.raises(UsageError, match=r"harness\.package/1"):
        package.read_package(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "a\\b", ""])
def test_a_path_outside_the_package_is_refused(folder: Path, name: str) -> None:
    entry = {"sha256": "0", "size": 1}
    change(folder, lambda document: document["files"].update({name: entry}))
    with pytest.raises(StageFailed, match="path outside the package"):
        package.read_package(folder)


def test_a_link_out_of_the_package_is_refused(folder: Path) -> None:
    (folder / "params_shard_0.bin").unlink()
    (folder / "params_shard_0.bin").symlink_to("/etc/passwd")
    with pytest.raises(StageFailed, match=r"params_shard_0\.bin is missing"):
        package.read_package(folder)


def test_a_cut_file_is_found_by_its_size(folder: Path) -> None:
    (folder / "params_shard_0.bin").write_bytes(bytes(10))
    with pytest.raises(StageFailed, match="has 10 bytes, not 400"):
        package.read_package(folder)


def test_changed_bytes_are_found_when_asked(folder: Path) -> None:
    (folder / "params_shard_0.bin").write_bytes(bytes(400))
    package.read_package(folder)
    with pytest.raises(StageFailed, match="other bytes"):
        package.read_package(folder, verify=True)


KEYS = st.sampled_from(["schema", "stamp", "tvm", "targets", "files", "a"])
DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text() | st.just(package.SCHEMA),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(text=st.text() | DOCUMENTS.map(json.dumps))
def test_any_description_is_read_or_refused_clearly(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("package")
    (folder / package.PACKAGE_JSON).write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(HarnessError):
        package.read_package(folder)
