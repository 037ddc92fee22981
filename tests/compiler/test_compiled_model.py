"""Packages of GGUF files against the numpy reference: a tiny model and the real one.

What int8 activations cost is bounded here; that libraries are exact is shown in test_families.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness import golden
from harness.compiler import host, quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.numerics import quality
from harness.compiler.numerics.evaluate import Evaluator, parameter_values, reference
from harness.compiler.packages.package import read_package
from harness.recipes import Recipe

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="packages run on an x86_64 host"
)
Compile = Callable[..., Path]
Q = gguf.GGMLQuantizationType
TOKENS = [int(token) for token in np.random.default_rng(5).integers(3, 260, 200)]


def quantized_reference(checkpoint: Checkpoint, name: str) -> Evaluator:
    """The reference on the values that a quantization keeps."""
    formats = quantization.find(name).formats(checkpoint)
    items = {item.name: item for item in decoder(checkpoint.config).parameters()}

    def values(parameter: str) -> np.ndarray:
        item = items[parameter]
        if not isinstance(item, Matrix):
            return parameter_values(checkpoint, item)
        sources = [checkpoint.tensors[source] for source in item.sources]
        fmt = formats[parameter]
        return layout.dequantize(fmt, quantization.store(fmt, sources))

    return Evaluator(checkpoint.config, values)


@pytest.mark.parametrize("name", ["q4f16_gguf", "q4f16_1"])
def test_four_bits_are_near_the_reference_on_the_same_values(
    tiny_gguf: Path, compiled: Compile, name: str
) -> None:
    expected = quantized_reference(open_checkpoint(tiny_gguf), name).forward(TOKENS)
    found = host.logits(compiled(tiny_gguf, name), TOKENS)
    result = quality.compare(TOKENS, expected, found)
    # int8 activations cost this much on random weights; wrong values cost a hundred times it.
    assert result.mean_kl < 3e-3 and result.same_top > 0.9


CHUNKS = [[64, 64, 64, 8], [7, 1, 92, 99, 1], [1] * 200]


def test_chunks_cost_four_bits_no_more_than_a_rounding(tiny_gguf: Path, compiled: Compile) -> None:
    package = compiled(tiny_gguf, "q4f16_gguf", prefill_chunk=256)
    once = host.logits(package, TOKENS, chunks=[200])
    for chunks in CHUNKS:
        found = host.logits(package, TOKENS, chunks=chunks)
        assert np.abs(found - once)[: chunks[0]].max() < 1e-4, chunks
        assert quality.compare(TOKENS, once, found).mean_kl < 1e-3, chunks


def test_generation_takes_the_best_token_of_each_step(tiny_gguf: Path, compiled: Compile) -> None:
    package = compiled(tiny_gguf, "q0f32")
    answer = host.generate(package, TOKENS[:70], 12)["token_ids"]
    model = reference(open_checkpoint(tiny_gguf))
    logits = model.forward(TOKENS[:70])
    for token in answer:
        assert token == int(logits[-1].argmax())
        logits = model.forward([token])


@pytest.mark.parametrize("matrix", [Q.Q8_0, Q.Q4_0])
def test_an_untied_model_in_other_types_is_right(
    write_gguf: Callable[..., Path], compiled: Compile, matrix: Q
) -> None:
    path = write_gguf(matrix=matrix, table=Q.Q4_1, tied=False)
    expected = reference(open_checkpoint(path)).forward(TOKENS[:40])
    found = host.logits(compiled(path, "q4f16_gguf"), TOKENS[:40])
    assert quality.compare(TOKENS[:40], expected, found).mean_kl < 3e-3


def test_the_answer_does_not_depend_on_the_number_of_threads(
    tiny_gguf: Path, compiled: Compile
) -> None:
    package = compiled(tiny_gguf, "q4f16_gguf")
    one = host.logits(package, TOKENS, threads=1)
    assert np.array_equal(one, host.logits(package, TOKENS, threads=2))


def test_the_real_model_in_float32_is_within_five_thousandths_everywhere(
    smollm2: tuple[Recipe, Path], compiled: Compile
) -> None:
    _, path = smollm2
    tokens = story_tokens(compiled(path, "q4f16_gguf", context=1024))[:200]
    expected = reference(open_checkpoint(path)).forward(tokens)
    found = host.logits(compiled(path, "q0f32"), tokens)
    assert np.abs(found - expected).max() < 5e-3


def test_the_real_model_in_its_own_four_bits_loses_what_int8_activations_cost(
    smollm2: tuple[Recipe, Path], compiled: Compile
) -> None:
    _, path = smollm2
    package = compiled(path, "q4f16_gguf", context=1024)
    tokens = story_tokens(package)
    source = reference(open_checkpoint(path)).forward(tokens)
    result = quality.compare(tokens, source, host.logits(package, tokens))
    assert result.perplexity < 1.01 * result.source_perplexity
    assert result.mean_kl < 5e-3
    # With float activations only the KV cache is rounded, to float16.
    exact = compiled(path, "q4f16_gguf", context=1024, activations="float")
    assert quality.compare(tokens, source, host.logits(exact, tokens)).mean_kl < 1e-5
    # The weights themselves are the file's own.
    recorded = read_package(package).facts["quality"]
    assert recorded["mean_kl"] < 1e-6 and recorded["same_top"] == 1


def test_the_real_model_gives_the_golden_answers(
    smollm2: tuple[Recipe, Path], compiled: Compile
) -> None:
    recipe, path = smollm2
    package = compiled(path, "q4f16_gguf", context=1024)
    ends = read_package(package).facts["eos_token_ids"]
    for answer in golden.load(recipe.folder / "golden.json"):
        result = host.generate(package, answer.prompt_token_ids, len(answer.token_ids))
        found = [token for token in result["token_ids"] if token not in ends]
        difference = golden.difference(answer, found)
        assert difference is None or difference.allowed, f"{answer.prompt!r}: {difference}"


def story_tokens(package: Path) -> list[int]:
    from tokenizers import Tokenizer

    text = quality.held_out_texts()["story"]
    ids: list[int] = Tokenizer.from_file(str(package / "tokenizer.json")).encode(text).ids
    return ids
