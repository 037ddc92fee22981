"""The forward pass in numpy: batches, what an observer sees, and where it rounds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.compiler.architectures import decoder
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.numerics.evaluate import Evaluator, reference, source_values

GOLDENS = Path(__file__).parent.parent / "goldens"
TEXTS = np.random.default_rng(2).integers(3, 512, (3, 40))


@pytest.fixture(scope="module", params=["gemma3-linear", "qwen2-a"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return open_checkpoint(GOLDENS / request.param)


def test_a_batch_gives_what_each_of_its_texts_gives_alone(checkpoint: Checkpoint) -> None:
    model = reference(checkpoint)
    together = np.concatenate([model.forward(TEXTS[:, :25]), model.forward(TEXTS[:, 25:])], axis=1)
    for text, found in zip(TEXTS, together, strict=True):
        model.reset()
        assert np.abs(model.forward(text) - found).max() < 1e-4


def test_layers_one_at_a_time_give_what_a_forward_pass_gives(checkpoint: Checkpoint) -> None:
    model = reference(checkpoint)
    expected = model.forward(TEXTS)
    model.reset()
    x = model.embeddings(TEXTS)
    for layer in range(checkpoint.config.num_hidden_layers):
        x = model.layer(layer, x)
    assert np.array_equal(model.head(x), expected)


def test_an_observer_sees_the_rows_that_each_matrix_is_multiplied_with(
    checkpoint: Checkpoint,
) -> None:
    seen: dict[str, np.ndarray] = {}
    values = source_values(checkpoint)
    model = Evaluator(checkpoint.config, values, observe=seen.__setitem__)
    logits = model.forward(TEXTS)
    matrices = {item.name: item for item in model.decoder.matrices()}
    # The table is looked up in, and multiplied with where it is the head.
    tied = checkpoint.config.tie_word_embeddings
    assert seen.keys() == matrices.keys() - (set() if tied else {"model.embed_tokens"})
    for name, rows in seen.items():
        assert rows.shape == (TEXTS.size, matrices[name].columns)
    product = seen[model.decoder.head] @ values(model.decoder.head).T
    assert np.abs(product.reshape(logits.shape) - logits).max() < 1e-5


@pytest.mark.parametrize("keep", [True, False])
def test_parameters_are_asked_for_again_unless_they_are_kept(
    checkpoint: Checkpoint, keep: bool
) -> None:
    asked: Counter[str] = Counter()
    values = source_values(checkpoint)

    def counted(name: str) -> np.ndarray:
        asked[name] += 1
        return values(name)

    model = Evaluator(checkpoint.config, counted, keep=keep)
    model.forward(TEXTS[0])
    model.forward(TEXTS[1])
    assert asked.keys() == {item.name for item in decoder(checkpoint.config).parameters()}
    assert (max(asked.values()) == 1) is keep


def test_a_float16_cache_rounds_what_comes_out_of_it(checkpoint: Checkpoint) -> None:
    seen: dict[str, np.ndarray] = {}
    model = Evaluator(
        checkpoint.config,
        source_values(checkpoint),
        observe=seen.__setitem__,
        kv_dtype="float16",
    )
    rounded = model.forward(TEXTS)
    for layer in range(checkpoint.config.num_hidden_layers):
        mixed = seen[f"model.layers.{layer}.self_attn.o_proj"]
        assert np.array_equal(mixed, mixed.astype(np.float16))
    apart = np.abs(rounded - reference(checkpoint).forward(TEXTS))
    assert 0 < apart.max() < 0.05
