"""`harness compile` as a user meets it: its flags, its closing line, where packages go."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.cli.compile import closing_line
from harness.compiler.packages import delivery, package
from harness.errors import UsageError

FACTS = {
    "bits_per_weight": 4.51,
    "quality": {"perplexity": 18.05, "source_perplexity": 17.5, "mean_kl": 0.0412},
    "memory": {"total": 150 << 20, "context": 4096},
}


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def compile_(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """`harness compile` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = cli._run(["compile", *map(str, words)])
        return Outcome(code, *capsys.readouterr())

    return run


def test_the_closing_line_says_what_the_package_is_worth() -> None:
    assert closing_line("ava-GE3-1b-q4bf16_1-android.tar", FACTS, 2048) == (
        "ava-GE3-1b-q4bf16_1-android.tar   4.5 bits a weight   "
        "perplexity +3.1 % (KL 0.041) against the checkpoint   fits 2048 MiB at context 4096"
    )
    line = closing_line("p", {**FACTS, "quality": None}, None)
    assert line == "p   4.5 bits a weight   needs 150 MiB at context 4096"


def test_a_checkpoint_becomes_a_folder_and_an_archive_and_is_not_compiled_again(
    compile_: Callable[..., Outcome], tiny_gguf: Path, tmp_path: Path, workspace: Path
) -> None:
    # The workspace and the chunk of other tests: their weights and libraries serve here too.
    shared = (tiny_gguf, "--workspace", workspace, "--prefill-chunk", 64)
    words = (*shared, "--abi", "x86_64", "--abi", "arm64-v8a", "-o", "out/tiny", "--tar")
    done = compile_(*words)
    assert done.code == 0, done.err
    name = r"out/ava-LL2-\d+m-q4f16_gguf-android\.tar"
    assert re.match(rf"{name}   \d+\.\d bits a weight   .*needs \d+ MiB at context 512$", done.out)
    found = package.read_package(tmp_path / "out/tiny", verify=True)
    assert found.abis == ("arm64-v8a", "x86_64")
    (archive,) = (tmp_path / "out").glob("*.tar")
    first = archive.read_bytes()
    again = compile_(*words, "--json")
    assert again.code == 0 and "is compiled" in again.err and "holds this package" in again.err
    assert "model library" not in again.err and "weights" not in again.err
    document = json.loads(again.out)
    assert document["schema"] == "harness.compile/1" and document["path"] == "out/tiny"
    assert document["memory"] == found.facts["memory"]
    assert document["bits_per_weight"] == pytest.approx(
        document["weights_bytes"] * 8 / document["parameters"], abs=1e-3
    )
    assert archive.read_bytes() == first


def test_a_memory_budget_shortens_the_context_or_refuses(
    compile_: Callable[..., Outcome], write_gguf: Callable[..., Path]
) -> None:
    def long_context(writer: Any) -> None:
        writer.kv_data[0].pop("llama.context_length")
        writer.add_context_length(4096)

    path = write_gguf(change=long_context)
    base = (path, "--quant", "q0f32", "--abi", "x86_64", "--prefill-chunk", "512")
    whole = json.loads(compile_(*base, "--json").out)["memory"]
    assert whole["context"] == 4096 and whole["total"] > 4 << 20
    fits = compile_(*base, "--memory-budget", "4", "--json")
    memory = json.loads(fits.out)["memory"]
    assert 512 <= memory["context"] < 4096 and memory["total"] <= 4 << 20
    assert f"the context is {memory['context']} tokens instead of 4096" in fits.err
    refused = compile_(*base, "--memory-budget", "4", "--context", "4096")
    assert refused.code == 2 and "do not fit the budget of 4 MiB" in refused.err
    assert f"try    --context {memory['context']}" in refused.err
    refused = compile_(*base, "--memory-budget", "1")
    assert refused.code == 2 and "try    --memory-budget 4" in refused.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--context", "0"), "--context"),
        (("--group-size", "48"), "--group-size"),
        (("--activations", "int4"), "--activations"),
        (("--opt-level", "9"), "--opt-level"),
        (("--backend", "cuda"), "--backend"),
        (("--abi", "mips"), "--abi"),
        (("--calibration", "no/such.txt"), "there is no text to calibrate on at no/such.txt"),
        (("--calibration-samples", "8"), "--calibration-samples has nothing to count"),
        (("--calibration", "self", "--calibration-samples", "0"), "--calibration-samples"),
        (("--memory-budget", "-5"), "--memory-budget"),
    ],
)
def test_a_bad_setting_is_refused_before_any_work(
    compile_: Callable[..., Outcome],
    tiny_gguf: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    says: str,
) -> None:
    done = compile_(tiny_gguf, *words)
    assert done.code == 2 and says in done.err
    assert not (tmp_path / ".harness/build").exists()


def test_a_folder_with_something_else_is_not_overwritten(
    compile_: Callable[..., Outcome], tiny_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    done = compile_(tiny_gguf, "--abi", "x86_64", "-o", "thesis")
    assert done.code == 2 and "thesis is not overwritten" in done.err
    assert (tmp_path / "thesis/chapter.txt").read_text() == "years of work"
    assert not (tmp_path / ".harness/build").exists()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A package of one file."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(64))
    stamp = {"tvm": package.tvm_version(), "targets": {}}
    package.write_package_json(folder, {"name": "small", "stamp": stamp})
    return folder


def test_an_older_package_is_replaced_whole(small: Path, tmp_path: Path) -> None:
    old = tmp_path / "mine"
    shutil.copytree(small, old)
    (old / "stale.bin").write_bytes(b"old")
    (old / "weights.bin").write_bytes(b"cut")
    delivery.unpack(small, old)
    assert sorted(path.name for path in old.iterdir()) == ["package.json", "weights.bin"]
    package.read_package(old, verify=True)
    assert not list(tmp_path.glob(".*"))


def test_what_is_delivered_is_a_copy(small: Path, tmp_path: Path) -> None:
    delivery.unpack(small, tmp_path / "a/b")
    (tmp_path / "a/b/weights.bin").write_bytes(b"mine now")
    package.read_package(small, verify=True)


def test_a_file_or_a_link_is_not_replaced(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(small)
    for name in ("file", "link"):
        with pytest.raises(UsageError, match="is not overwritten"):
            delivery.unpack(small, tmp_path / name)
    assert (tmp_path / "file").read_text() == "text"
