"""tune: who takes turns, and who is chosen."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import tuning
from harness.compiler.options import CompileOptions
from harness.errors import DeviceError
from harness.stages.tune import Outcome, runners, table, tune
from harness.stages.tune.choosing import Sample, Tried, best, better, spread
from harness.stages.tune.runners import read_sample
from harness.tuned import Choice

DEFAULT = Choice(2, "best", None)
rounds = st.lists(st.floats(0.001, 1e4), min_size=5, max_size=9)


def tried(choice: Choice, *decode_ms: float) -> Tried:
    return Tried(choice, tuple(Sample(ms, 1.0) for ms in decode_ms))


class Place:
    """Runs candidates by a formula, and keeps who ran in which order."""

    def __init__(self, cost: Callable[[Choice, int], Sample]) -> None:
        self.cost = cost
        self.order: list[Choice] = []
        self.made: list[tuple[int | None, ...]] = []
        self.held = False

    @contextlib.contextmanager
    def ready(self, tiles: Sequence[int | None]) -> Iterator[Callable[[Choice], Sample]]:
        self.made.append(tuple(tiles))
        self.held = True
        try:
            yield self.run
        finally:
            self.held = False

    def run(self, choice: Choice) -> Sample:
        assert self.held and choice.tile in self.made[-1]
        self.order.append(choice)
        return self.cost(choice, len(self.order))

    def tune(self, **changes: Any) -> Outcome:
        settings: dict[str, Any] = {
            "threads": [1, 2, 4],
            "variants": ["best", "plain"],
            "tiles": [2, 6, 8],
            "rounds": 5,
        }
        return tune(self.ready, DEFAULT, **{**settings, **changes})


def steady(choice: Choice, at: int) -> Sample:
    """Four threads decode best, tiles of six read best; noise of a hundredth."""
    noise = 1 + 0.01 * (at % 3)
    slow = 1.5 if choice.cpu_variant == "plain" else 1.0
    return Sample(
        decode_ms=noise * slow * 12 / (choice.threads or 1),
        prefill_ms=noise * slow * {None: 2.0, 2: 3.0, 6: 1.5, 8: 1.8}[choice.tile],
    )


def test_the_fastest_threads_then_the_fastest_tile_are_chosen() -> None:
    outcome = Place(steady).tune()
    assert outcome.chosen.choice == Choice(4, "best", 6)
    assert outcome.default.choice == DEFAULT
    assert len(outcome.first) == 6
    assert {one.choice.tile for one in outcome.first} == {None}
    assert [one.choice for one in outcome.last] == [
        DEFAULT,
        *(Choice(4, "best", tile) for tile in (None, 2, 6, 8)),
    ]


def test_every_round_runs_each_candidate_once_and_begins_with_another() -> None:
    place = Place(steady)
    place.tune(rounds=6)
    first = [place.order[at : at + 6] for at in range(0, 36, 6)]
    assert all(set(one) == set(first[0]) and len(set(one)) == 6 for one in first)
    assert len({one[0] for one in first}) == 6
    assert place.made == [(None,), (None, 2, 6, 8)]


def test_what_is_given_is_not_varied() -> None:
    place = Place(steady)
    outcome = place.tune(threads=[2], variants=["best"])
    assert outcome.first == () and place.made == [(None, 2, 6, 8)]
    assert outcome.chosen.choice == Choice(2, "best", 6)
    assert "variants and threads" not in table.text(outcome, "tiny")


def test_nothing_is_chosen_where_all_are_alike() -> None:
    dice = random.Random(4)
    noisy = Place(lambda choice, at: Sample(5 + dice.random(), 1 + dice.random()))
    outcome = noisy.tune(rounds=7)
    assert outcome.chosen == outcome.default
    assert "the defaults stay" in table.text(outcome, "tiny")
    assert table.document(outcome)["better"] is False


def test_what_was_fast_by_luck_in_the_first_rounds_is_not_chosen() -> None:
    def once(choice: Choice, at: int) -> Sample:
        return Sample(2.0 if choice.threads == 4 and at <= 30 else 10.0, 1.0)

    outcome = Place(once).tune()
    assert outcome.last[1].choice.threads == 4
    assert outcome.chosen.choice == DEFAULT


def test_the_table_marks_the_default_and_the_choice_with_medians_and_spreads() -> None:
    text = table.text(Place(steady).tune(), "tiny · q4f16_1 · sm8650 · Pixel 8")
    assert text.startswith("tiny · q4f16_1 · sm8650 · Pixel 8\n")
    (chosen,) = [line for line in text.splitlines() if line.endswith("chosen")]
    assert chosen.split()[:4] == ["4", "best", "6", "3.03"]
    assert text.splitlines()[-1].startswith(
        "chosen: 4 threads, best, tiles of 6 tokens: faster than the defaults by more than the "
        "spreads of both; decode "
    )


def test_a_candidate_that_fails_ends_it_and_is_named() -> None:
    def fail(choice: Choice, at: int) -> Sample:
        if choice.threads == 4:
            raise DeviceError("the app crashed", cause="SIGILL", remedy="look")
        return steady(choice, at)

    place = Place(fail)
    with pytest.raises(DeviceError) as caught:
        place.tune()
    assert caught.value.cause == "SIGILL; with 4 threads, best"
    assert not place.held


@pytest.mark.parametrize("at", [1, 17, 40])
def test_ctrl_c_lets_go_of_the_place(at: int) -> None:
    def stop(choice: Choice, number: int) -> Sample:
        if number == at:
            raise KeyboardInterrupt
        return steady(choice, number)

    place = Place(stop)
    with pytest.raises(KeyboardInterrupt):
        place.tune()
    assert not place.held and len(place.order) == at


@given(rounds)
def test_nothing_is_better_than_itself_or_than_its_own_rounds_in_another_order(
    values: list[float],
) -> None:
    assert not better(values, values)
    assert not better(sorted(values), sorted(values, reverse=True))


@given(rounds, rounds)
def test_what_is_better_has_the_smaller_median_and_never_both_ways(
    one: list[float], other: list[float]
) -> None:
    if better(one, other):
        assert sorted(one)[len(one) // 2] <= sorted(other)[len(other) // 2]
        assert not better(other, one)


@given(rounds, st.floats(0.001, 1e4))
def test_one_slow_round_in_five_widens_no_spread(values: list[float], slow: float) -> None:
    five = sorted(values)[:5]
    assert spread([*five[:4], max(five[4], slow * 1000)]) == spread(five)


def test_the_default_stays_unless_the_gain_is_more_than_both_spreads() -> None:
    other = Choice(4, "best", None)
    default = tried(DEFAULT, 10, 10, 10, 10.5, 9.5)
    equal = tried(other, 9.5, 9.5, 9.5, 10, 9)
    faster = tried(other, 9.4, 9.4, 9.4, 9.4, 9.4)
    wide = tried(other, 9, 9, 5, 14, 13)
    assert spread(default.decode_ms()) == spread([10, 10, 10, 10.5, 9.5]) == 0
    loose = tried(DEFAULT, 10, 10.25, 9.75, 10.5, 9.5)
    assert best([loose, equal], DEFAULT, Tried.decode_ms) == DEFAULT
    assert best([loose, faster], DEFAULT, Tried.decode_ms) == other
    assert best([default, wide], DEFAULT, Tried.decode_ms) == DEFAULT


def records(**changes: Any) -> list[dict[str, Any]]:
    timed = {"step": "timed", **changes}
    return [
        {"t": "begin"},
        {"t": "prefill", "step": "warm", "tokens": 5, "start_ns": 0, "end_ns": 10**9},
        {"t": "prefill", "tokens": 50, "start_ns": 0, "end_ns": 75 * 10**6, **timed},
        {"t": "tokens", "ids": [1, 2], "ns": [80 * 10**6, 86 * 10**6], **timed},
        {"t": "tokens", "ids": [3, 4], "ns": [92 * 10**6, 99 * 10**6], **timed},
    ]


def test_a_sample_is_of_the_timed_step_in_milliseconds_a_token() -> None:
    assert read_sample(records(), "phone") == Sample(decode_ms=6.0, prefill_ms=1.5)


@pytest.mark.parametrize(
    "broken",
    [
        {"step": "warm"},
        {"t": "finish"},
        {"ns": []},
        {"ns": None},
        {"tokens": 0},
        {"tokens": "many"},
        {"end_ns": 0},
        {"ns": [9, 9]},
    ],
)
def test_timings_that_are_none_are_one_clear_error(broken: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="the timings from phone are not those of a run"):
        read_sample(records(**broken), "phone")
    without = [{key: value for key, value in record.items() if key != "ns"} for record in records()]
    with pytest.raises(DeviceError) as caught:
        read_sample(without, "phone")
    assert caught.value.cause == "they lack 'ns'"


@given(st.integers(12, 1 << 17), st.integers(1, 400))
def test_prompt_and_answer_fit_any_context(context: int, prompt: int) -> None:
    answer, units = runners._sizes(context, prompt)
    assert answer >= 2 and 1 <= units <= prompt
    assert answer + units + 1 <= context


@pytest.mark.parametrize(("noise", "told"), [(0.02, False), (3, True)])
def test_noise_that_hides_all_but_large_gains_is_told(
    noise: float, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(4)
    place = Place(lambda choice, at: Sample(5 * (1 + noise * dice.random()), 0.1))
    tuning._warn_of_noise(place.tune())
    assert ("something else was at work" in capsys.readouterr().err) is told


@given(st.integers(1, 12), st.integers(1, 200))
def test_threads_go_from_one_to_the_big_cores_and_to_all(big: int, more: int) -> None:
    found = tuning.counts(big, big + more)
    assert found[:-1] == list(range(1, min(big, 8) + 1))
    assert found[-1] == min(big + more, 64) and tuning.counts(big, big)[-1] in (big, 8)


def test_a_tile_that_is_compiled_without_being_asked_is_not_tried_twice() -> None:
    options = CompileOptions(quantization="q4f16_1", context=512, prefill_chunk=64)
    assert tuning.tiles(options) == [2, 6, 8]
    assert tuning.tiles(replace(options, quantization="q4f16_gguf")) == [2, 6, 8]
    assert tuning.tiles(replace(options, quantization="q0f32")) == [2, 4, 6]
    assert tuning.tiles(replace(options, tile=8)) == [2, 4, 6]
