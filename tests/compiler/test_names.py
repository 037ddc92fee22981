"""Names of archives and the table of their versions."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compiler.model_config import DecoderConfig, Rope
from harness.compiler.packages import names, versions
from harness.errors import StageFailed

CONFIG = DecoderConfig(
    family="gemma3",
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=512,
    rms_norm_eps=1e-6,
    context_window=128,
    tie_word_embeddings=True,
    query_scale=0.25,
    rope=Rope(10000.0),
)


@pytest.mark.parametrize(
    ("name", "family", "vocabulary", "parameters", "code"),
    [
        ("gemma-3-1b-it", "gemma3", 262_144, 999_885_952, "GE3-1b"),
        ("gemma-3-270m-it", "gemma3", 262_144, 268_098_176, "GE3-270m"),
        ("gemma-2-2b-it", "gemma2", 256_000, 2_614_341_888, "GE2-2b"),
        ("gemma-2b-it", "gemma", 256_000, 2_506_172_416, "GE1-2b"),
        ("Llama-3.2-1B-Instruct", "llama", 128_256, 1_235_814_400, "LL3-1b"),
        ("llama-2-7b-chat", "llama", 32_000, 6_738_415_616, "LL2-7b"),
        ("Qwen2.5-0.5B", "qwen2", 151_936, 494_032_768, "QW2-0.5b"),
        ("qwen3-0.6b", "qwen3", 151_936, 596_049_920, "QW3-0.6b"),
        ("my-own", "qwen3", 151_936, 596_049_920, "QW3-596m"),
        ("my-own-7b", "gemma3", 262_144, 999_885_952, "GE3-1b"),
        ("0b", "gemma3", 262_144, 1_234_000_000, "GE3-1.2b"),
    ],
)
def test_a_code_says_family_generation_and_size(
    name: str, family: str, vocabulary: int, parameters: int, code: str
) -> None:
    config = replace(CONFIG, family=family, vocab_size=vocabulary)
    assert names.model_code(name, config, parameters) == code


def test_an_archive_is_named_as_ava_names_it() -> None:
    assert names.archive_name("GE3-1b", "q4bf16_1") == "ava-GE3-1b-q4bf16_1-android.tar"


@given(st.text(max_size=30), st.integers(0, 10**12))
def test_every_model_has_a_code(name: str, parameters: int) -> None:
    assert names.model_code(name, CONFIG, parameters).startswith("GE3-")


def archive(folder: Path, content: bytes, name: str = "ava-GE3-1b-q0f32-android.tar") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def record(workspace: Path, path: Path) -> versions.Version:
    return versions.record_version(workspace, model="gemma", quantization="q0f32", archive=path)


def test_the_same_bytes_keep_their_version_and_others_get_the_next(tmp_path: Path) -> None:
    first = record(tmp_path, archive(tmp_path, b"one"))
    assert (first.version, first.size, first.model) == (1, 3, "gemma")
    second = record(tmp_path, archive(tmp_path, b"two"))
    assert second.version == 2
    assert record(tmp_path, archive(tmp_path, b"one")) == first
    other = record(tmp_path, archive(tmp_path, b"one", "ava-GE3-1b-q4f16_1-android.tar"))
    assert other.version == 1
    assert versions.read_versions(tmp_path) == (first, second, other)


def test_processes_that_record_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.compiler.packages import versions\n"
        "for i in range(20):\n"
        "    path = Path(sys.argv[2]) / 'a.tar'; path.write_bytes(f'{sys.argv[2]} {i}'.encode())\n"
        "    versions.record_version(Path(sys.argv[1]), model='m', quantization='q', archive=path)"
    )
    running = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        argv = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / name)]
        running.append(subprocess.Popen(argv))
    assert [process.wait(60) for process in running] == [0, 0, 0]
    found = [entry.version for entry in versions.read_versions(tmp_path)]
    assert found == list(range(1, 61))


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "[" * 50_000,
        '{"schema": "harness.versions/1"}',
        '{"schema": "harness.versions/1", "versions": [1]}',
        '{"schema": "harness.versions/1", "versions": [{"archive": "a"}]}',
    ],
)
def test_a_damaged_table_is_one_error_and_is_not_overwritten(tmp_path: Path, damage: str) -> None:
    path = versions.table_path(tmp_path)
    path.parent.mkdir()
    path.write_text(damage)
    with pytest.raises(StageFailed, match="cannot read the versions table"):
        record(tmp_path, archive(tmp_path, b"one"))
    assert path.read_text() == damage


@pytest.mark.parametrize(
    ("key", "value"), [("version", 0), ("version", True), ("sha256", "f"), ("date", 7)]
)
def test_a_wrong_entry_is_named(tmp_path: Path, key: str, value: object) -> None:
    record(tmp_path, archive(tmp_path, b"one"))
    path = versions.table_path(tmp_path)
    document = json.loads(path.read_text())
    document["versions"][0][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(StageFailed, match="cannot read the versions table"):
        versions.read_versions(tmp_path)


@pytest.mark.parametrize("name", ["models", ".harness"])
def test_a_table_that_cannot_be_written_is_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a file where a folder should be")
    with pytest.raises(StageFailed, match="cannot"):
        record(tmp_path, archive(tmp_path, b"one"))


def test_the_table_is_listed_for_people_and_as_a_document(tmp_path: Path) -> None:
    record(tmp_path, archive(tmp_path, b"one"))
    made = record(tmp_path, archive(tmp_path, b"two"))
    argv = [sys.executable, "-m", "harness", "models", "versions"]
    listed = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second = listed.stdout.splitlines()
    assert first.split()[:2] == [made.archive, "1"]
    assert second.split()[:3] == [made.archive, "2", made.date]
    document = subprocess.run([*argv, "--json"], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(document.stdout)["versions"][1]["sha256"] == made.sha256
