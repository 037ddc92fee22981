"""Every family against transformers' answers: the equations in numpy, and compiled libraries.

Goldens are folders under tests/goldens (scripts/make_family_goldens.py makes most of them); one
that is added is tested without more.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.compiler import host, quantization
from harness.compiler.architectures import FAMILIES, decoder
from harness.compiler.architectures.parameters import Matrix
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.kernels import layout
from harness.compiler.library import RUNTIME_SONAME
from harness.compiler.model_config import DecoderConfig
from harness.compiler.numerics.evaluate import Evaluator, parameter_values, reference
from harness.compiler.numerics.golden_logits import GoldenLogits, read_golden_logits

FOLDER = Path(__file__).parent.parent / "goldens"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/golden.npz"))
TOLERANCE = 2e-3
# Sizes that begin and end inside pages of the cache.
CHUNKS = [7, 1, 16, 33]
# A small one with norms of heads, windows, two kinds of rotary positions and groups.
ROUNDED = "gemma3-linear"
QUANTIZED = ("q4f32_1", "q4f16_1", "q0f16", "q0bf16")
runs = pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")
# The first test that asks for a compiled model waits for all of them.
pytestmark = pytest.mark.timeout(900)
Ways = Mapping[str, np.ndarray]


def golden(name: str) -> GoldenLogits:
    return read_golden_logits(FOLDER / name / "golden.npz")


def check(found: Ways, expected: GoldenLogits, tolerance: float) -> None:
    """All ways of running give the golden's logits, and decoding freely its tokens."""
    for way in ("whole", "chunks", "tokens"):
        assert np.abs(found[way] - expected.logits).max() < tolerance, way
    assert np.abs(found["free"][0] - expected.logits[-1]).max() < tolerance
    assert found["free"].argmax(-1).tolist() == list(expected.greedy)


def ways(model: Evaluator, expected: GoldenLogits) -> Ways:
    """What `run_families` makes of a compiled model, of numpy's."""
    tokens = np.asarray(expected.tokens)
    rows = {"whole": model.forward(tokens)}
    model.reset()
    parts = np.split(tokens, np.cumsum(CHUNKS))
    rows["chunks"] = np.concatenate([model.forward(part) for part in parts])
    model.reset()
    rows["tokens"] = np.concatenate([model.forward([token]) for token in tokens])
    free = [rows["tokens"][-1:]]
    for _ in expected.greedy[1:]:
        free.append(model.forward([int(free[-1].argmax())]))
    rows["free"] = np.concatenate(free)
    return rows


def test_every_family_has_a_golden() -> None:
    assert {open_checkpoint(FOLDER / name).config.family for name in NAMES} == set(FAMILIES)


def test_a_configuration_survives_json() -> None:
    for name in NAMES:
        config = open_checkpoint(FOLDER / name).config
        assert DecoderConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("name", NAMES)
def test_the_equations_in_numpy_give_the_logits_of_transformers(name: str) -> None:
    expected = golden(name)
    check(ways(reference(open_checkpoint(FOLDER / name)), expected), expected, 1e-4)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ways]:
    """What compiled models give in every way, by the case's name: all run in two processes."""
    folder = tmp_path_factory.mktemp("families")
    (folder / RUNTIME_SONAME).symlink_to(host._runtime())
    cases = [case(name, "q0f32", "int8") for name in NAMES]
    cases += [case(ROUNDED, chosen, "float") for chosen in QUANTIZED]
    halves = [cases[::2], cases[1::2]]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda half: run_all(half, folder), halves))

    def of(name: str) -> Ways:
        with np.load(folder / f"{name}.npz") as found:
            return dict(found)

    return of


def case(name: str, quantization: str, activations: str) -> dict[str, object]:
    expected = golden(name)
    return {
        "name": f"{name}-{quantization}",
        "checkpoint": str(FOLDER / name),
        "quantization": quantization,
        "activations": activations,
        "tokens": expected.tokens,
        "chunks": CHUNKS,
        "steps": len(expected.greedy) - 1,
    }


def run_all(cases: list[dict[str, object]], folder: Path) -> None:
    script = Path(__file__).with_name("run_families.py")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr


@runs
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_model_in_float32_gives_the_logits_of_transformers(
    name: str, ran: Callable[[str], Ways]
) -> None:
    check(ran(f"{name}-q0f32"), golden(name), TOLERANCE)


def kept_values(name: str, chosen: str, kv_dtype: str) -> Evaluator:
    """Numpy on the values that a quantization keeps."""
    checkpoint = open_checkpoint(FOLDER / name)
    formats = quantization.find(chosen).formats(checkpoint)
    items = {item.name: item for item in decoder(checkpoint.config).parameters()}

    def values(parameter: str) -> np.ndarray:
        item = items[parameter]
        if not isinstance(item, Matrix):
            return parameter_values(checkpoint, item)
        sources = [checkpoint.tensors[source] for source in item.sources]
        fmt = formats[parameter]
        return layout.dequantize(fmt, quantization.store(fmt, sources))[:, : item.columns]

    return Evaluator(checkpoint.config, values, kv_dtype=kv_dtype)


@runs
def test_four_bits_with_float_activations_are_numpys_on_the_same_values(
    ran: Callable[[str], Ways],
) -> None:
    expected = kept_values(ROUNDED, "q4f32_1", "float32").forward(golden(ROUNDED).tokens)
    found = ran(f"{ROUNDED}-q4f32_1")
    for way in ("whole", "chunks", "tokens"):
        assert np.abs(found[way] - expected).max() < TOLERANCE, way


@runs
@pytest.mark.parametrize("chosen", [name for name in QUANTIZED if name != "q4f32_1"])
def test_a_float16_cache_costs_what_rounding_to_it_costs(
    chosen: str, ran: Callable[[str], Ways]
) -> None:
    """What the type costs is what numpy loses by rounding where the graph rounds.

    Both round the same values, but sums in another order turn some roundings over: each is
    within that cost of the unrounded model, so they are within twice of each other. Chunks
    round once more where the runtime merges the parts of an attention.
    """
    tokens = golden(ROUNDED).tokens
    exact = kept_values(ROUNDED, chosen, "float32").forward(tokens)
    rounded = kept_values(ROUNDED, chosen, "float16").forward(tokens)
    cost = np.abs(rounded - exact)
    assert 0 < cost.max() < 0.02
    found = ran(f"{ROUNDED}-{chosen}")
    for way in ("whole", "chunks", "tokens"):
        assert np.abs(found[way] - rounded).max() < 2 * cost.max(), way
    # One piece rounds exactly where numpy does, and is nearer to it than to the unrounded model.
    assert np.abs(found["whole"] - rounded).mean() < np.abs(found["whole"] - exact).mean() / 2


@runs
@pytest.mark.parametrize("chosen", ["q0f16", "q0bf16"])
def test_sixteen_bits_give_the_logits_of_transformers_within_their_cache(
    chosen: str, ran: Callable[[str], Ways]
) -> None:
    """The checkpoint's bfloat16 values are exact in both types (above 6e-8 in float16)."""
    expected = golden(ROUNDED)
    rounded = kept_values(ROUNDED, chosen, "float16").forward(expected.tokens)
    cost = np.abs(rounded - expected.logits).max()
    check(ran(f"{ROUNDED}-{chosen}"), expected, 2 * float(cost))
