"""The rotation inside the graph, for layers that the cache's own does not serve."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compiler.kernels import kv_pages, rotary
from harness.compiler.kernels.heads import Heads

U = 2.0**-24
EPS = 1e-6
MODELS = {  # the heads, the rotated pairs, the base, the norms
    "gemma3": (Heads(4, 1, 256, "float32"), 128, 1e6, True, True),
    "qwen3": (Heads(6, 2, 128, "float16"), 64, 1e6, True, True),
    "partly": (Heads(3, 3, 80, "float32"), 16, 1e4, False, True),
}
models = pytest.mark.parametrize("model", MODELS)


def frequencies(model):
    _, half, base, _, _ = MODELS[model]
    return [base ** (-i / half) for i in range(half)]


@pytest.fixture(scope="module")
def kernels(build):
    return build(
        {
            f"{model}_{suffix}": rotary.rotary(
                *(heads, frequencies(model)),
                **{"q_norm": q_norm, "k_norm": k_norm, "eps": EPS, "tokens": tokens},
            )
            for model, (heads, _, _, q_norm, k_norm) in MODELS.items()
            for suffix, tokens in (("one", 1), ("any", None))
        }
        | {"split": kv_pages.split_rotary(Heads(4, 1, 32, "float16"), None)}
    )


def expected(model, qkv, positions, weights):
    heads, half, _, q_norm, k_norm = MODELS[model]
    x, weights = qkv.astype(np.float64), list(weights)
    parts = np.split(x, [heads.query, heads.query + heads.key_value], 1)
    angle = (positions[:, None].astype(np.float64) * np.array(frequencies(model)))[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    for i, norm in enumerate((q_norm, k_norm)):
        if norm:
            mean = (parts[i] ** 2).mean(-1, keepdims=True)
            parts[i] = parts[i] / np.sqrt(mean + EPS) * weights.pop(0)
        a, b, rest = np.split(parts[i], [half, 2 * half], -1)
        parts[i] = np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)
    return np.concatenate(parts, 1)


@models
@pytest.mark.parametrize("n", [1, 7])
def test_heads_are_normalised_then_rotated_and_values_copied(kernels, model, n):
    heads, _, _, q_norm, k_norm = MODELS[model]
    rng = np.random.default_rng(n)
    shape = (n, heads.query + 2 * heads.key_value, heads.size)
    qkv = (rng.standard_normal(shape) * 10).astype(heads.dtype)
    positions = rng.integers(0, 131072, n)
    weights = [
        rng.standard_normal(heads.size).astype(np.float32) for norm in (q_norm, k_norm) if norm
    ]
    right = expected(model, qkv, positions, weights)
    # The mean of squares is a sum of `size` terms; then the products, a sum, sine and cosine.
    error = (heads.size / 2 + 16) * U * np.abs(right).max() * 2
    if heads.dtype == "float16":
        error = error + 2.0**-11 * np.abs(right) + 2.0**-24
    for suffix in ("one", "any") if n == 1 else ("any",):
        out = np.full_like(qkv, np.nan)
        kernels(f"{model}_{suffix}", qkv, kernels.view(positions), *weights, out)
        assert (np.abs(out - right) <= error).all()
        assert (out[:, -heads.key_value :] == qkv[:, -heads.key_value :]).all()


@settings(max_examples=20)
@given(positions=st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=40))
def test_angles_stay_exact_at_every_position(kernels, positions):
    """Heads of (1, 0) pairs come back as cosine and sine; `partly` leaves its queries plain."""
    heads, half = MODELS["partly"][:2]
    positions = np.array([*positions, 0, 131071, 131072])
    qkv = np.zeros((len(positions), heads.query + 2 * heads.key_value, heads.size), np.float32)
    qkv[..., :half] = 1
    out = np.full_like(qkv, np.nan)
    weight = np.ones(heads.size, np.float32)
    kernels("partly_any", qkv, kernels.view(positions), weight, out)
    # Reduced in extended precision, so that the reference's own product is exact enough.
    angle = positions[:, None].astype(np.longdouble) * np.array(frequencies("partly"))
    assert np.abs(out[:, 0, :half] - np.cos(angle)).max() < 4 * U
    assert np.abs(out[:, 0, half : 2 * half] - np.sin(angle)).max() < 4 * U


def test_without_frequencies_the_cache_only_splits(kernels):
    qkv = np.random.default_rng(0).standard_normal((3, 6, 32)).astype(np.float16)
    q, k, v = (np.zeros((3, heads, 32), np.float16) for heads in (4, 1, 1))
    kernels("split", qkv, kernels.view([5, 6, 7]), q, k, v, 0)
    assert (np.concatenate([q, k, v], 1) == qkv).all()


@pytest.mark.parametrize(
    ("rates", "what"),
    [([1.0] * 12, "12 rotated pairs"), ([1.0] * 24, "24 rotated pairs"), ([], "0 rotated pairs")]
    + [([rate] * 8, "half turn") for rate in (-0.1, math.pi, math.inf, math.nan)],
)
def test_frequencies_that_do_not_fit_are_refused(rates, what):
    with pytest.raises(ValueError, match=what):
        rotary.check(Heads(4, 4, 32, "float32"), rates)
