"""Statistics agree with numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats

samples = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60)


@given(samples, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    expected = float(np.percentile(np.array(values), percent, method="linear"))
    assert stats.percentile(values, percent) == pytest.approx(expected, rel=1e-12, abs=1e-6)


@given(samples)
def test_the_median_is_that_of_numpy(values: list[float]) -> None:
    assert stats.median(values) == pytest.approx(float(np.median(values)), rel=1e-12, abs=1e-6)


@given(samples)
def test_the_deviation_is_the_median_of_distances_from_the_median(values: list[float]) -> None:
    array = np.array(values)
    expected = float(np.median(np.abs(array - np.median(array))))
    assert stats.mad(values) == pytest.approx(expected, rel=1e-12, abs=1e-5)


@given(samples, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_rise_and_stay_between_the_extremes(
    values: list[float], one: float, other: float
) -> None:
    low, high = (stats.percentile(values, percent) for percent in sorted((one, other)))
    assert min(values) <= low <= high <= max(values)


def test_a_single_sample_is_every_percentile_of_itself() -> None:
    assert [stats.percentile([0.1], percent) for percent in (0, 50, 95, 100)] == [0.1] * 4


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")]])
def test_no_samples_and_samples_that_are_no_numbers_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="sample"):
        stats.percentile(values, 50)


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
def test_a_percentile_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="not between"):
        stats.percentile([1.0], percent)


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12, unique=True), st.floats(-50, 50))
def test_a_trend_is_the_slope_of_a_line(places: list[float], slope: float) -> None:
    values = [slope * place + 3 for place in places]
    closest = min(abs(a - b) for a in places for b in places if a != b)
    assert stats.trend(places, values) == pytest.approx(slope, abs=1e-6 / min(closest, 1e-2))


def test_a_trend_is_not_moved_by_a_jump_but_by_growth() -> None:
    jump = [100.0] * 8 + [900.0] + [100.0] * 8
    assert stats.trend(range(17), jump) == 0
    assert stats.trend(range(17), [value + 2 * at for at, value in enumerate(jump)]) == 2
    with pytest.raises(ValueError, match="no samples"):
        stats.trend([1], [5])
