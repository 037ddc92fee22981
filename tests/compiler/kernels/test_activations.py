"""Rounding of activations and RMS normalisation, against numpy."""

import numpy as np
import pytest

from harness.compiler.kernels import activations

U = 2.0**-24
"""The unit roundoff of float32: a rounded result is off by at most U times its magnitude."""
K = 96
EPS = 1e-5


@pytest.fixture(scope="module")
def kernels(isa, build):
    functions = {}
    for tokens, name in ((1, "one"), (None, "many")):
        functions |= {
            f"quantize_{name}": activations.quantize(isa, K, tokens=tokens),
            f"quantize_f16_{name}": activations.quantize(isa, K, tokens=tokens, dtype="float16"),
            f"norm_{name}": activations.rms_norm(isa, K, EPS, tokens=tokens),
            f"norm_quantize_{name}": activations.rms_norm_quantize(isa, K, EPS, tokens=tokens),
            f"norm_add_{name}": activations.norm_add(isa, K, EPS, tokens=tokens),
            f"quantize_40_{name}": activations.quantize(isa, K, tokens=tokens, group=40),
            f"norm_quantize_40_{name}": activations.rms_norm_quantize(
                isa, K, EPS, tokens=tokens, group=40
            ),
        }
    functions["quantize_90"] = activations.quantize(isa, 90, tokens=None, group=40)
    return build(functions)


def outputs(n, k=K, group=32):
    groups = -(-k // group)
    return (
        np.full((n, groups * group // 4), 99, np.int32),
        np.full((n, groups), np.nan, np.float32),
        np.full((n, groups), np.nan, np.float32),
    )


def rounded(x, group=32):
    """The definition, in float32 step by step: every bit is prescribed."""
    filled = np.pad(x, ((0, 0), (0, -x.shape[1] % group)))
    groups = filled.reshape(len(x), -1, group).astype(np.float32)
    largest = np.abs(groups).max(-1)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(
            largest > np.float32(1e-30), np.float32(127) / largest, np.float32(0)
        ).astype(np.float32)
    q = np.rint(groups * inverse[..., None]).astype(np.int8)
    scale = largest * np.float32(1 / 127)
    total = scale * q.astype(np.int32).sum(-1).astype(np.float32)
    return q.reshape(len(x), -1).view(np.int32), scale, total


def extreme_rows():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((7, K)).astype(np.float32)
    rows[1] = 0
    rows[2, :32] = 1e-40  # denormal
    rows[2, 32:64] = 2e-30
    rows[3] *= np.float32(1e38) / np.abs(rows[3]).max()
    rows[4] = np.where(np.arange(K) % 2, 127, -127)  # every value at the end of the range
    rows[5, :] = np.float32(0.5)
    rows[5, 0] = 127  # 0.5 lies half-way between two integers
    rows[6] = -0.0
    return rows


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_quantized_activations_are_the_definition_bit_for_bit(kernels, tokens):
    rows = extreme_rows()
    for first in range(0, len(rows) - tokens + 1):
        x = rows[first : first + tokens].copy()
        found = outputs(tokens)
        kernels("quantize_one" if tokens == 1 else "quantize_many", x, *found)
        for a, b in zip(found, rounded(x), strict=True):
            assert (a == b).all()


@pytest.mark.parametrize("tokens", [1, 7])
def test_groups_of_40_are_filled_up_with_zeros(kernels, tokens):
    x = extreme_rows()[:tokens].copy()
    found = outputs(tokens, group=40)
    kernels("quantize_40_one" if tokens == 1 else "quantize_40_many", x, *found)
    for a, b in zip(found, rounded(x, 40), strict=True):
        assert (a == b).all()


def test_any_number_of_columns_is_filled_up(kernels):
    x = np.ascontiguousarray(extreme_rows()[:, :90])
    found = outputs(len(x), 90, 40)
    kernels("quantize_90", x, *found)
    for a, b in zip(found, rounded(x, 40), strict=True):
        assert (a == b).all()


def test_float16_activations_are_quantized_alike(kernels):
    x = np.random.default_rng(0).standard_normal((5, K)).astype(np.float16)
    found = outputs(5)
    kernels("quantize_f16_many", x, *found)
    for a, b in zip(found, rounded(x), strict=True):
        assert (a == b).all()


def normalised(x, weight):
    wide = x.astype(np.float64)
    return wide / np.sqrt((wide**2).mean(-1, keepdims=True) + EPS) * weight


# The sum of squares adds K/32 terms a lane and five levels of lanes, each off by U; the root halves
# that; mean, eps, root, inverse and two products add one U each.
NORM_ERROR = ((K / 32 + 6) / 2 + 6) * U


@pytest.mark.parametrize("tokens", [1, 6])
def test_rms_norm_is_within_the_error_of_its_roundings(kernels, tokens):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((tokens, K)) * 10.0 ** rng.integers(-4, 5, (tokens, 1))).astype("f4")
    x[-1, 5:] = 0
    weight = rng.standard_normal(K).astype(np.float32)
    y = np.full_like(x, np.nan)
    kernels("norm_one" if tokens == 1 else "norm_many", x, weight, y)
    expected = normalised(x, weight)
    assert (np.abs(y - expected) <= NORM_ERROR * np.abs(expected)).all()


def test_rms_norm_of_zeros_is_zeros(kernels):
    y = np.full((1, K), np.nan, np.float32)
    kernels("norm_one", np.zeros((1, K), np.float32), np.ones(K, np.float32), y)
    assert not y.any()


@pytest.mark.parametrize("group", [32, 40])
@pytest.mark.parametrize("tokens", [1, 5])
def test_norm_and_rounding_in_one_equal_the_two_steps(kernels, tokens, group):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((tokens, K)).astype(np.float32)
    weight = rng.standard_normal(K).astype(np.float32)
    suffix = "one" if tokens == 1 else "many"
    y = np.empty_like(x)
    kernels(f"norm_{suffix}", x, weight, y)
    found = outputs(tokens, group=group)
    kernels(f"norm_quantize_{'40_' if group == 40 else ''}{suffix}", x, weight, *found)
    for a, b in zip(found, rounded(y, group), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_norm_is_added_to_what_was_there(kernels, tokens):
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((2, tokens, K)).astype(np.float32)
    weight = rng.standard_normal(K).astype(np.float32)
    out = np.full_like(x, np.nan)
    kernels(f"norm_add_{'one' if tokens == 1 else 'many'}", x, y, weight, out)
    norm = normalised(y, weight)
    expected = x + norm
    assert (np.abs(out - expected) <= NORM_ERROR * np.abs(norm) + U * np.abs(expected)).all()


def test_a_size_that_is_no_multiple_of_32_is_refused(isa):
    with pytest.raises(ValueError, match="groups of 32"):
        activations.rms_norm(isa, 40, EPS, tokens=1)
