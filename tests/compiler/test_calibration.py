from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from harness.compiler import calibration, quantization
from harness.compiler.architectures import decoder
from harness.compiler.architectures.parameters import Vector
from harness.compiler.calibration import feedback, samples
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.numerics import parts
from harness.compiler.numerics.evaluate import Evaluator, log_softmax, parameter_values, reference
from harness.compiler.quantization import symmetric
from harness.compiler.tokenization.tokenizer_source import TokenType
from harness.errors import UsageError

GOLDENS = Path(__file__).parent.parent / "goldens"
FORMATS = ["q4_sym_f16", "q4_sym_bf16", "q4_sym_f32/64", "q3_sym_f16", "q8_0"]


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def silent(done: float, total: float, unit: str) -> None:
    pass


def letters(text: str) -> list[int]:
    """A tokenizer for texts of letters, on any vocabulary."""
    return [3 + ord(letter) % 200 for letter in text]


def correlated(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A random matrix, and the second moment of inputs with few directions."""
    random = np.random.default_rng(7)
    weights = random.normal(size=(rows, columns)).astype(np.float32)
    inputs = random.normal(size=(columns, 24)) @ random.normal(size=(24, columns))
    inputs += 0.3 * random.normal(size=inputs.shape)
    return weights, feedback.damped(inputs.T @ inputs / columns)


def loss(
    weights: np.ndarray, plain: feedback.Plain, fmt: WeightFormat, hessian: np.ndarray
) -> float:
    error = weights - layout.dequantize(fmt, plain)
    return float(np.einsum("ij,jk,ik->", error, hessian, error))


def textbook(weights: np.ndarray, hessian: np.ndarray, group: int) -> np.ndarray:
    """GPTQ as its paper has it: the inverse's upper factor, largest magnitudes as scales."""
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left, found = weights.astype(np.float64), np.zeros(weights.shape)
    for column in range(weights.shape[1]):
        if column % group == 0:
            scale = np.abs(left[:, column : column + group]).max(1) / 7
        found[:, column] = np.clip(np.rint(left[:, column] / scale), -7, 7) * scale
        error = (left[:, column] - found[:, column]) / upper[column, column]
        left[:, column + 1 :] -= np.outer(error, upper[column, column + 1 :])
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_feedback_lowers_the_loss_that_rounding_to_nearest_has(name: str) -> None:
    fmt = WeightFormat.parse(name)
    weights, hessian = correlated(20, fmt.group * 6)
    nearest = loss(weights, symmetric.round_to_nearest(weights, fmt), fmt, hessian)
    fitted = loss(weights, feedback.round_matrix(weights, hessian, fmt), fmt, hessian)
    assert fitted < 0.3 * nearest


def test_feedback_is_better_than_gptq_with_the_largest_magnitudes_as_scales() -> None:
    fmt = WeightFormat.Q4_SYM_F32
    weights, hessian = correlated(20, 192)
    error = weights - textbook(weights, hessian, fmt.group)
    paper = float(np.einsum("ij,jk,ik->", error, hessian, error))
    assert loss(weights, feedback.round_matrix(weights, hessian, fmt), fmt, hessian) < 0.8 * paper


def test_rounds_never_make_the_loss_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = WeightFormat.Q4_SYM_F32
    weights, hessian = correlated(20, 192)
    losses = []
    for rounds in range(4):
        monkeypatch.setattr(feedback, "ROUNDS", rounds)
        plain = feedback.round_matrix(weights, hessian, fmt)
        losses.append(loss(weights, plain, fmt, hessian))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]


def test_columns_that_no_sample_had_and_rows_of_zeros_are_no_trouble() -> None:
    fmt = WeightFormat.Q4_SYM_F16
    weights, hessian = correlated(9, 64)
    weights[3] = 0
    hessian[:, 40:] = hessian[40:] = 0
    plain = feedback.round_matrix(weights, feedback.damped(hessian), fmt)
    found = layout.dequantize(fmt, plain)
    assert np.isfinite(found).all() and not found[3].any()


def test_inputs_that_are_all_zero_leave_rounding_to_nearest_on_the_wider_grid() -> None:
    fmt = WeightFormat.Q4_SYM_F32
    weights, _ = correlated(9, 64)
    plain = feedback.round_matrix(weights, feedback.damped(np.zeros((64, 64))), fmt)
    step = np.abs(layout.widen(plain["q_scale"], fmt.dtype)).repeat(32, axis=1)
    assert (np.abs(layout.dequantize(fmt, plain) - weights) <= 1.5 * step).all()


def packed(
    checkpoint: Checkpoint, name: str, tokens: list[samples.Tokens]
) -> tuple[dict[str, WeightFormat], dict[str, feedback.Plain]]:
    formats = quantization.find(name).formats(checkpoint)
    return formats, dict(calibration.calibrated(checkpoint, formats, tokens))


def logits(
    checkpoint: Checkpoint,
    formats: dict[str, WeightFormat],
    plain: dict[str, feedback.Plain],
    tokens: np.ndarray,
) -> np.ndarray:
    items = {item.name: item for item in decoder(checkpoint.config).parameters()}

    def values(name: str) -> np.ndarray:
        item = items[name]
        if isinstance(item, Vector):
            return parameter_values(checkpoint, item)
        return layout.dequantize(formats[name], plain[name])[:, : item.columns]

    return Evaluator(checkpoint.config, values).forward(tokens)


@pytest.mark.parametrize(
    ("golden", "name"),
    [
        ("llama-a", "q4f16_1"),
        ("qwen2-a", "q4f32_1"),
        ("gemma3-window", "q4bf16_1"),
        ("gemma2-window", "q3f16_1"),
    ],
)
def test_a_calibrated_model_is_nearer_to_its_source_on_another_text(golden: str, name: str) -> None:
    checkpoint = open_checkpoint(GOLDENS / golden)
    formats, made = packed(checkpoint, name, samples.sample(checkpoint, 16, silent))
    tokens = np.random.default_rng(2).integers(3, 200, 100)
    source = log_softmax(reference(checkpoint).forward(tokens))
    nearest = {
        item.name: quantization.store(
            formats[item.name], [checkpoint.tensors[source] for source in item.sources]
        )
        for item in decoder(checkpoint.config).matrices()
    }
    assert list(made) == list(nearest)
    found = {}
    for kind, plain in (("nearest", nearest), ("calibrated", made)):
        model = log_softmax(logits(checkpoint, formats, plain, tokens))
        found[kind] = float((np.exp(source) * (source - model)).sum(-1).mean())
    assert found["calibrated"] < 0.9 * found["nearest"]


def test_the_same_settings_give_the_same_bytes_on_any_number_of_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = open_checkpoint(GOLDENS / "llama-a")
    runs = []
    for workers in (1, 4):
        monkeypatch.setattr(parts, "_pool", ThreadPoolExecutor(workers))
        runs.append(packed(checkpoint, "q4f16_1", samples.sample(checkpoint, 12, silent))[1])
    for name, plain in runs[0].items():
        for part, values in plain.items():
            assert np.array_equal(values, runs[1][name][part]), name


def test_samples_are_what_the_model_says_and_never_control_tokens() -> None:
    checkpoint = open_checkpoint(GOLDENS / "gemma3-a")
    first = samples.sample(checkpoint, 12, silent)
    assert [part.shape for part in first] == [(8, samples.SEQUENCE), (4, samples.SEQUENCE)]
    texts = np.concatenate(first)
    kinds = np.array(checkpoint.tokenizer.token_types)[texts]
    assert (texts[:, 0] == checkpoint.tokenizer.bos_token_id).all()
    assert np.isin(kinds[:, 1:], [TokenType.NORMAL, TokenType.BYTE]).all()
    assert len(np.unique(texts, axis=0)) == 12
    again = np.concatenate(samples.sample(checkpoint, 12, silent))
    assert np.array_equal(texts, again)
    # Fewer samples begin as more do where they are drawn together; likely tokens are drawn more.
    scores = log_softmax(reference(checkpoint).forward(texts))
    said = np.take_along_axis(scores[:, 1:-1], texts[:, 2:, None], -1)
    assert said.mean() > scores[:, 1:-1].mean()


DOCUMENTS = ["A first text. " * 40, "Another one, about something else. " * 40]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(DOCUMENTS),
        "\n".join(json.dumps(text) for text in DOCUMENTS),
        "\n\n".join(json.dumps({"text": text, "more": 1}) for text in DOCUMENTS),
        "".join(DOCUMENTS),
    ],
    ids=["array", "lines of strings", "lines of objects", "text"],
)
def test_a_file_of_texts_may_have_any_of_its_forms(tmp_path: Path, content: str) -> None:
    path = tmp_path / "texts"
    path.write_text(content, encoding="utf-8")
    checkpoint = open_checkpoint(GOLDENS / "gemma3-a")
    found = np.concatenate(samples.read_samples(checkpoint, path, 6, letters))
    assert found.shape == (6, samples.SEQUENCE)
    assert (found[:, 0] == checkpoint.tokenizer.bos_token_id).all()
    whole = letters("".join(DOCUMENTS))
    assert found[0, 1:].tolist() == whole[: samples.SEQUENCE - 1]
    assert found[-1, 1:].tolist() == whole[-(samples.SEQUENCE - 1) :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("short", "too little text"),
        ("[]", "too little text"),
        ('[{"no": "text"}]', "no list of texts"),
        ("[1, 2]", "no list of texts"),
        ("[" * 100_000, "too little text|cannot read"),
        (None, "cannot read"),
    ],
)
def test_a_file_without_enough_text_is_one_error(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "texts"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    def few(text: str) -> list[int]:
        return letters(text[:50])

    checkpoint = open_checkpoint(GOLDENS / "llama-a")
    with pytest.raises(UsageError, match=message) as caught:
        samples.read_samples(checkpoint, path, 4, few)
    assert caught.value.remedy


@pytest.mark.parametrize(("name", "count"), [("q4f16_1", 0), ("q4f16_1", -3), ("q0f32", 8)])
def test_nothing_to_calibrate_or_nothing_to_do_it_on_is_an_error(name: str, count: int) -> None:
    formats = quantization.find(name).formats(open_checkpoint(GOLDENS / "llama-a"))
    with pytest.raises(UsageError) as caught:
        calibration.check(formats, count)
    assert caught.value.remedy.startswith("--calibration")


@pytest.mark.parametrize(
    ("name", "told"),
    [("q4f16_1", True), ("q3f16_1", True), ("q8f16_1", False), ("q4f16_gguf", False)],
)
def test_only_who_has_much_to_gain_is_told_of_calibration(
    tiny_gguf: Path, name: str, told: bool
) -> None:
    formats = quantization.find(name).formats(open_checkpoint(tiny_gguf))
    assert (calibration.advice(formats) is not None) == told


def test_values_of_the_file_stay_beside_calibrated_ones(write_gguf: Callable[..., Path]) -> None:
    import gguf

    kinds = gguf.GGMLQuantizationType
    checkpoint = open_checkpoint(write_gguf(matrix=kinds.Q4_1, table=kinds.Q8_0))
    formats = quantization.find("q4f16_1").formats(checkpoint, embedding="q8")
    tokens = samples.sample(checkpoint, 4, silent)
    made = dict(calibration.calibrated(checkpoint, formats, tokens))
    table = decoder(checkpoint.config).matrices()[0]
    kept = layout.dequantize(formats[table.name], made[table.name])
    assert np.array_equal(kept, parameter_values(checkpoint, table))
