"""verify: what a package answers against what its checkpoint's reference answers."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.numerics.evaluate import reference
from harness.compiler.packages import archive
from harness.errors import UsageError
from harness.stages import verify

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="packages run on an x86_64 host"
)
TOKENS = np.random.default_rng(8).integers(3, 260, 100)
GREEDY = 12


@pytest.fixture(scope="module")
def golden(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The numpy reference's answers on the tiny model, as a golden file."""
    model = reference(open_checkpoint(tiny_gguf))
    logits = model.forward(TOKENS)
    greedy = [int(logits[-1].argmax())]
    while len(greedy) < GREEDY:
        greedy.append(int(model.forward([greedy[-1]])[-1].argmax()))
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    np.savez(path, input_ids=TOKENS[None], logits=logits, greedy=np.array(greedy))
    return path


def harness(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "harness", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_an_exact_package_passes_in_every_way_of_running_it(
    tiny_gguf: Path, compiled: Callable[..., Path], golden: Path
) -> None:
    package = compiled(tiny_gguf, "q0f32")
    document = verify.verify(package, golden, verify.on_host(package, 2), where="here")
    assert document["problems"] == []
    assert list(document["ways"]) == ["prefill", "chunks", "tokens", "greedy"]
    for figures in document["ways"].values():
        assert figures["max_abs"] < 2e-3 and figures["top1"] == 1.0
    assert document["ways"]["greedy"]["greedy_match"] == 1.0


def test_an_archive_is_verified_from_the_command_line_with_numbers_as_json(
    tiny_gguf: Path, compiled: Callable[..., Path], golden: Path, tmp_path: Path
) -> None:
    archive.write_tar(compiled(tiny_gguf, "q0f32"), tmp_path / "tiny.tar")
    words = ["verify", tmp_path / "tiny.tar", "--golden", golden, "--workspace", tmp_path]
    done = harness(*words, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "harness.verify/1"
    assert set(document["ways"]["tokens"]) == {"max_abs", "mean_abs", "kl", "top1"}


def test_a_package_of_other_weights_is_a_regression_and_its_numbers_are_still_told(
    write_gguf: Callable[..., Path], compiled: Callable[..., Path], golden: Path, tmp_path: Path
) -> None:
    other = compiled(write_gguf(seed=7), "q0f32")
    done = harness("verify", other, "--golden", golden, "--workspace", tmp_path, "--json")
    assert done.returncode == 7
    document = json.loads(done.stdout)
    assert all(figures["kl"] > 0.1 for figures in document["ways"].values())
    assert len(document["problems"]) == 4 and "prefill: " in done.stderr


def test_a_single_wrong_greedy_token_is_found(
    tiny_gguf: Path, compiled: Callable[..., Path], golden: Path, tmp_path: Path
) -> None:
    arrays: dict[str, Any] = dict(np.load(golden))
    arrays["greedy"] = arrays["greedy"].copy()
    arrays["greedy"][5] = (arrays["greedy"][5] + 1) % 260
    np.savez(tmp_path / "golden.npz", **arrays)
    package = compiled(tiny_gguf, "q0f32")
    document = verify.verify(
        package, tmp_path / "golden.npz", verify.on_host(package, 2), where="here"
    )
    assert document["ways"]["greedy"]["greedy_match"] == pytest.approx(5 / GREEDY)
    assert [problem.partition(":")[0] for problem in document["problems"]] == ["greedy"]


def test_another_models_golden_file_and_a_longer_one_than_the_context_are_refused(
    tiny_gguf: Path, compiled: Callable[..., Path], golden: Path, tmp_path: Path
) -> None:
    arrays: dict[str, Any] = dict(np.load(golden))
    package = compiled(tiny_gguf, "q0f32")
    run = verify.on_host(package, 2)
    narrow = {**arrays, "logits": arrays["logits"][:, :-5]}
    longer = {
        **arrays,
        "input_ids": np.tile(arrays["input_ids"], 6),
        "logits": np.tile(arrays["logits"], (6, 1)),
    }
    for changed, words in ((narrow, "its vocabulary has"), (longer, "it has 612 tokens")):
        np.savez(tmp_path / "golden.npz", **changed)
        with pytest.raises(UsageError) as caught:
            verify.verify(package, tmp_path / "golden.npz", run, where="here")
        assert words in caught.value.cause
