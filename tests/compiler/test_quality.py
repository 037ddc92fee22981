from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.compiler import quantization
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.numerics import quality
from harness.compiler.numerics.evaluate import reference, source_values
from harness.compiler.numerics.quality import compare
from harness.compiler.numerics.written import written_values
from harness.compiler.weights import weights

GOLDENS = Path(__file__).parent.parent / "goldens"
SETTINGS = {
    "group_size": None,
    "embedding": "as-weights",
    "calibration": "none",
    "calibration_samples": 24,
}


def silent(done: float, total: float, unit: str) -> None:
    pass


def test_a_model_beside_itself_loses_nothing() -> None:
    logits = np.random.default_rng(1).normal(size=(20, 50)).astype(np.float32)
    result = compare(range(20), logits, logits)
    assert result.mean_kl == 0 and result.same_top == 1
    assert result.perplexity == result.source_perplexity


def test_kl_and_perplexity_are_their_definitions() -> None:
    random = np.random.default_rng(1)
    tokens = [int(token) for token in random.integers(0, 50, 20)]
    source, model = random.normal(size=(2, 20, 50)).astype(np.float32)
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (source, model))
    result = compare(tokens, source, model)
    assert result.mean_kl == pytest.approx(float((p * np.log(p / q)).sum(-1).mean()), rel=1e-5)
    losses = [-np.log(q[index, token]) for index, token in enumerate(tokens[1:])]
    assert result.perplexity == pytest.approx(float(np.exp(np.mean(losses))), rel=1e-5)


def test_the_texts_that_come_with_the_harness_are_of_four_kinds() -> None:
    texts = quality.held_out_texts()
    assert list(texts) == ["code", "documentation", "licence", "story"]
    assert all(len(text.encode()) > 4 * quality.MAX_TOKENS for text in texts.values())


def test_a_larger_model_is_measured_on_fewer_tokens() -> None:
    config = replace(open_checkpoint(GOLDENS / "llama-a").config, context_window=4096)
    assert quality.affordable_tokens(config, 135_000_000) == quality.MAX_TOKENS
    assert 32 < quality.affordable_tokens(config, 1_000_000_000) < quality.MAX_TOKENS
    assert quality.affordable_tokens(config, 70_000_000_000) == quality.MIN_TOKENS
    assert quality.affordable_tokens(replace(config, context_window=16), 1) == 16


@pytest.mark.parametrize("golden", ["llama-a", "gemma2-window", "qwen3-a"])
def test_layers_that_are_wrong_are_found_by_name(golden: str) -> None:
    checkpoint = open_checkpoint(GOLDENS / golden)
    source = source_values(checkpoint)
    random = np.random.default_rng(4)

    def damaged(name: str) -> np.ndarray:
        values = source(name)
        if name == "model.layers.1.mlp.down_proj":
            return values + random.normal(size=values.shape).astype(np.float32) * values.std()
        return values

    tokens = {"one": list(range(3, 40)), "two": list(range(60, 85))}
    found = quality.measure(checkpoint.config, source, damaged, tokens)
    assert next(iter(found["worst_layers"])) == "model.layers.1"
    assert found["worst_layers"]["model.layers.1"] > 0.05
    assert found["mean_kl"] > 0 and found["tokens"] == 62
    alone = reference(checkpoint).forward(tokens["one"])
    whole = compare(tokens["one"], alone, alone)
    told = found["texts"]["one"]["source_perplexity"]
    assert told == pytest.approx(whole.perplexity, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("q0f32", 0, 1e-9), ("q0f16", 0, 1e-4), ("q8f16_1", 1e-9, 1e-2), ("q4f16_1", 1e-6, 1.0)],
)
def test_the_weights_that_were_written_are_measured(
    tmp_path: Path, name: str, least: float, most: float
) -> None:
    settings = {**SETTINGS, "checkpoint": str(GOLDENS / "gemma3-a"), "quantization": name}
    found = weights({**settings, "folder": str(tmp_path)}, silent)
    assert least <= abs(found["quality"]["mean_kl"]) <= most
    assert len(found["quality"]["worst_layers"]) == 5
    json.dumps(found, allow_nan=False)


def test_what_is_read_back_is_what_was_stored(tiny_gguf: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "checkpoint": str(tiny_gguf), "quantization": "q4f16_gguf"}
    weights({**settings, "folder": str(tmp_path)}, silent)
    checkpoint = open_checkpoint(tiny_gguf)
    formats = quantization.find("q4f16_gguf").formats(checkpoint)
    source, model = source_values(checkpoint), written_values(tmp_path, checkpoint.config, formats)
    for name in [*formats, "model.norm.weight"]:
        assert np.array_equal(source(name), model(name)), name


def test_calibrated_packages_are_the_same_bytes_and_better(
    write_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    runs = {}
    for folder, where in (("none", "none"), ("one", "self"), ("two", "self")):
        out = tmp_path / folder
        out.mkdir()
        settings = {**SETTINGS, "checkpoint": str(GOLDENS / "llama-a"), "calibration": where}
        settings |= {"quantization": "q4f16_1", "folder": str(out)}
        runs[folder] = weights(settings, silent)["quality"]
    assert runs["one"] == runs["two"]
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert runs["one"]["mean_kl"] < 0.75 * runs["none"]["mean_kl"]
