"""Checkpoints on this machine: files and folders, what of them is needed, and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import recipes
from harness.compiler.sources import file_hashes, needed_files, source
from harness.errors import StageFailed, UsageError
from harness.recipes import FileSource

CONFIG = b'{"model_type": "gemma3_text", "max_position_embeddings": 512}'
WEIGHTS = bytes(range(256)) * 12_000
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "My Gemma"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    for path in folder.iterdir():
        os.utime(path, (time.time() - 100,) * 2)
    return folder


def test_a_folder_is_hashed_by_its_needed_files_and_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = source.folder_hash(folder)
    (folder / "README.md").write_text("of no account")
    read: list[Path] = []
    monkeypatch.setattr("harness.files.sha256_file", lambda path: read.append(path) or "0" * 64)
    assert source.folder_hash(folder) == first and read == []
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    (folder / "model.safetensors").write_bytes(WEIGHTS[1:] + b"\0")
    assert source.folder_hash(folder) != first


def test_a_damaged_hash_cache_is_never_believed(folder: Path) -> None:
    path = folder / "model.safetensors"
    right = hashlib.sha256(WEIGHTS).hexdigest()
    assert file_hashes.sha256(path) == right
    (entry,) = [path for path in (folder.parent / "cache").rglob("hashes/*/*") if path.is_file()]
    good = entry.read_text()
    turned = ("1" if good[0] == "0" else "0") + good[1:]
    for damage in (b"", good.encode()[:40], turned.encode(), b"\xff\xfe", good.upper().encode()):
        entry.write_bytes(damage)
        assert file_hashes.sha256(path) == right
        assert entry.read_text() == good


def test_a_file_that_has_just_changed_is_not_kept_by_its_time(folder: Path) -> None:
    path = folder / "model.safetensors"
    for content in (b"one", b"two", b"six"):
        path.write_bytes(content)
        assert file_hashes.sha256(path) == hashlib.sha256(content).hexdigest()


def test_shards_are_those_that_the_index_names(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(INDEX)
    (folder / "model-1.safetensors").write_bytes(b"1")
    with pytest.raises(StageFailed, match="not a whole checkpoint") as caught:
        source.folder_hash(folder)
    assert "model-2.safetensors" in caught.value.cause
    (folder / "model-2.safetensors").write_bytes(b"2")
    first = source.folder_hash(folder)
    (folder / "model.safetensors").write_bytes(b"the shards are named, this is not")
    assert source.folder_hash(folder) == first


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": []}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "model.bin"}}',
        "[" * 50_000,
        b"\xff".decode("latin1"),
    ],
)
def test_a_bad_index_is_one_error(folder: Path, index: str) -> None:
    (folder / "model.safetensors.index.json").write_bytes(index.encode("latin1"))
    with pytest.raises(StageFailed, match="not a whole checkpoint"):
        source.folder_hash(folder)


@given(st.sets(st.sampled_from(["config.json", "mlc-chat-config.json", "tensor-cache.json"])),
       st.sets(st.text(max_size=8).map(lambda text: text + ".safetensors")),
       st.binary(max_size=50))  # fmt: skip
def test_no_listing_fails_otherwise_than_with_an_error_of_ours(
    some: set[str], more: set[str], data: bytes
) -> None:
    names = some | more | ({needed_files.INDEX} if data else set())
    try:
        chosen = needed_files.select("it", names, lambda name: data)
    except (StageFailed, UsageError):
        return
    assert set(chosen) <= names


def test_a_folder_without_a_recipe_gets_the_defaults(folder: Path) -> None:
    found = recipes.find(str(folder), folder.parent)
    assert (found.name, found.title, found.context) == ("my-gemma", "My Gemma", 512)
    assert found.quantization == "q4f16_1" and found.source == FileSource(folder, None)
    (folder / "config.json").write_text('{"text_config": {"max_position_embeddings": 131072}}')
    assert recipes.find(str(folder), folder.parent).context == 4096
    mlc = {"quantization": "q0f32", "context_window_size": 768}
    (folder / "mlc-chat-config.json").write_text(json.dumps(mlc))
    with pytest.raises(StageFailed, match="MLC compiled"):
        recipes.find(str(folder), folder.parent)
    (folder / "ndarray-cache.json").write_text("{}")
    (folder / "params_shard_0.bin").write_bytes(b"")
    found = recipes.find(str(folder), folder.parent)
    assert (found.quantization, found.context) == ("q0f32", 768)


def test_a_quantized_gguf_keeps_its_values_and_its_folder_stands_for_it(tiny_gguf: Path) -> None:
    for text in (str(tiny_gguf), str(tiny_gguf.parent)):
        found = recipes.find(text, Path("/nonexistent"))
        assert (found.quantization, found.source) == ("q4f16_gguf", FileSource(tiny_gguf, None))


def test_what_is_no_checkpoint_is_refused_by_name(folder: Path) -> None:
    pickle = folder / "pytorch_model.bin"
    pickle.write_bytes(b"\x80\x04.")
    for path, said in (
        (pickle, "pickled"),
        (folder / "model.safetensors", "weights alone"),
        (folder / "config.json", "no checkpoint"),
        (folder.parent, "no checkpoint"),
        (folder / "absent.gguf", "there is no checkpoint"),
        (folder / "absent", "there is no checkpoint"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            recipes.find(str(path), folder.parent)
        assert caught.value.remedy
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="pickled"):
        recipes.find(str(folder), folder.parent)
    (folder / "config.json").write_text("[1]")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="no model configuration"):
        recipes.find(str(folder), folder.parent)


@pytest.mark.parametrize("text", ["", "\0", "~nobody/x", "x" * 5000, "a/../b", "org/x@", "a b/c"])
def test_no_name_fails_otherwise_than_with_a_usage_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        recipes.find(text, tmp_path)
