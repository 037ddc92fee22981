"""The Kotlin sampler against the same steps written with numpy and full sorts."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.tools import jdk

SOURCE = Path(__file__).with_name("SamplerCases.java")
CASES = 600
DRAWS = 20
# numpy's exp and Java's may differ in a float's last bit, 2**-24 of its value at most, and with
# a weight the sum by which it is divided.
TOLERANCE = 2.0**-22

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    logits: Floats
    prompt: Sequence[int] = ()
    answer: Sequence[int] = ()
    allowed: Ids | None = None
    temperature: float = 1
    top_p: float = 1
    top_k: int = 0
    min_p: float = 0
    typical_p: float = 1
    repetition: float = 1
    frequency: float = 0
    presence: float = 0
    bias: dict[int, float] = field(default_factory=dict)
    seed: int = 0

    def packed(self) -> bytes:
        """As SamplerCases.java reads it."""
        parts = [struct.pack(">i", len(self.logits)), self.logits.astype(">f4").tobytes()]
        parts += [_packed_ids(self.prompt), _packed_ids(self.answer)]
        parts += [struct.pack(">?", self.allowed is not None)]
        if self.allowed is not None:
            parts.append(_packed_ids(self.allowed))
        parts.append(struct.pack(">ff", self.temperature, self.top_p))
        parts.append(struct.pack(">iff", self.top_k, self.min_p, self.typical_p))
        parts.append(struct.pack(">fff", self.repetition, self.frequency, self.presence))
        parts.append(_packed_ids(list(self.bias)))
        parts.append(struct.pack(f">{len(self.bias)}f", *self.bias.values()))
        parts.append(struct.pack(">qi", self.seed, DRAWS))
        return b"".join(parts)


def _packed_ids(ids: Sequence[int] | Ids) -> bytes:
    return struct.pack(">i", len(ids)) + np.asarray(ids, dtype=">i4").tobytes()


@dataclass(frozen=True)
class Answer:
    """Nothing at all where no token is possible."""

    ids: Ids
    probabilities: NDArray[np.float64]
    draws: list[int]


def _unpacked(data: bytes, count: int) -> list[Answer]:
    answers = []
    at = 0

    def take(kind: str, number: int) -> NDArray[Any]:
        nonlocal at
        values = np.frombuffer(data, kind, number, at)
        at += values.nbytes
        return values

    for _ in range(count):
        size = int(take(">i4", 1)[0])
        ids = take(">i4", size).astype(np.int64)
        probabilities = take(">f8", size).astype(np.float64)
        answers.append(Answer(ids, probabilities, take(">i4", DRAWS if size else 0).tolist()))
    assert at == len(data)
    return answers


def _adjusted(case: Case) -> Floats:
    """Mask, bias and penalties, in floats as the sampler has them."""
    logits = case.logits.copy()
    for token, bias in case.bias.items():
        logits[token] += np.float32(bias)
    for token in {*case.prompt, *case.answer}:
        factor = np.float32(case.repetition)
        logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
    for token in set(case.answer):
        occurrences = np.float32(case.answer.count(token))
        logits[token] -= occurrences * np.float32(case.frequency) + np.float32(case.presence)
    if case.allowed is not None:
        outside = np.ones(len(logits), dtype=bool)
        outside[case.allowed] = False
        logits[outside] = -np.inf
    return logits


def _sorted(ids: Ids, values: Floats) -> Ids:
    """Largest values first, of equal ones the lowest id."""
    return ids[np.lexsort((ids, -values[ids]))]


def _reaching(ids: Ids, weights: Floats, share: float) -> Ids:
    """The fewest of the first `ids` that have this share of all their weight."""
    sums = np.cumsum(weights[ids], dtype=np.float64)
    target = np.float64(np.float32(share)) * weights[np.sort(ids)].sum(dtype=np.float64)
    return ids[: int(np.searchsorted(sums, target)) + 1]


def _expected(case: Case) -> Answer:
    with np.errstate(under="ignore"):
        logits = _adjusted(case)
        ids = _sorted(np.flatnonzero(logits > -np.inf), logits)
        if len(ids) == 0:
            return Answer(ids, np.zeros(0), [])
        if case.temperature == 0:
            return Answer(ids[:1], np.ones(1), [int(ids[0])] * DRAWS)
        if case.top_k:
            ids = ids[: case.top_k]
        scores = (logits - logits[ids[0]]) / np.float32(case.temperature)
        weights = np.exp(scores.astype(np.float64)).astype(np.float32)
        ids = _sorted(ids[weights[ids] > 0], weights)
        if case.top_p < 1:
            ids = _reaching(ids, weights, case.top_p)
        ids = ids[weights[ids] >= np.float32(case.min_p)]
        if case.typical_p < 1:
            ids = _typical(ids, scores, weights, case.typical_p)
        ids = np.sort(ids)
        sums = np.cumsum(weights[ids], dtype=np.float64)
        draws = [_drawn(ids, weights, point * sums[-1]) for point in _split_mix(case.seed)]
        return Answer(ids, weights[ids] / sums[-1], draws)


def _typical(ids: Ids, scores: Floats, weights: Floats, share: float) -> Ids:
    logarithms = scores[ids] - np.log(weights[ids].sum(dtype=np.float64))
    probabilities = weights[ids] / weights[ids].sum(dtype=np.float64)
    entropy = -(probabilities * logarithms).sum()
    closeness = np.full(len(scores), -np.inf, dtype=np.float32)
    closeness[ids] = -np.abs(-logarithms - entropy)
    return _reaching(_sorted(ids, closeness), weights, share)


def _drawn(ids: Ids, weights: Floats, point: float) -> int:
    rest = np.subtract.accumulate(np.concatenate([[point], weights[ids].astype(np.float64)]))[1:]
    passed = np.flatnonzero(rest < 0)
    return int(ids[passed[0] if len(passed) else -1])


def _split_mix(state: int) -> list[float]:
    """Points from 0 until 1 by SplitMix64."""
    points = []
    for _ in range(DRAWS):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        points.append(((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53)
    return points


def _random_logits(random: np.random.Generator) -> Floats:
    size = int(np.exp(random.uniform(np.log(5), np.log(50_000))))
    logits: NDArray[np.float64] = random.normal(size=size) * random.choice([0.01, 1, 3, 30, 1000])
    kind = random.integers(4)
    if kind == 0:
        logits = np.round(logits)
    elif kind == 1:
        logits[random.random(size) < random.random()] = -np.inf
    elif kind == 2:
        logits[random.integers(size, size=5)] += 12
    return logits.astype(np.float32)


def _random_case(random: np.random.Generator) -> Case:
    logits = _random_logits(random)
    size = len(logits)

    def ids(most: int) -> list[int]:
        return random.integers(size, size=random.integers(most)).tolist()  # type: ignore[no-any-return]

    def maybe(neutral: float, low: float, high: float) -> float:
        return neutral if random.random() < 0.6 else float(random.uniform(low, high))

    biased = {token: float(random.normal() * 5) for token in ids(6)}
    if biased and random.random() < 0.3:
        biased[next(iter(biased))] = -np.inf
    return Case(
        logits,
        prompt=ids(40),
        answer=ids(40) * int(random.integers(1, 4)),
        allowed=np.flatnonzero(random.random(size) < random.random() ** 2)
        if random.random() < 0.3
        else None,
        temperature=0.0 if random.random() < 0.1 else float(random.choice([0.1, 0.7, 1, 1.7, 20])),
        top_p=maybe(1, 1e-6, 1),
        top_k=int(maybe(0, 1, 2 * size)) if random.random() < 0.5 else int(maybe(0, 1, 50)),
        min_p=maybe(0, 0, 0.3),
        typical_p=maybe(1, 1e-6, 1),
        repetition=maybe(1, 0.5, 2),
        frequency=maybe(0, -2, 2),
        presence=maybe(0, -2, 2),
        bias=biased,
        seed=int(random.integers(-(2**63), 2**63)),
    )


@pytest.fixture(scope="module")
def compared(kotlin_jars: str) -> list[tuple[Case, Answer, Answer]]:
    """Random cases, what is expected, and what the sampler says to all of them in one JVM."""
    random = np.random.default_rng(5)
    cases = [_random_case(random) for _ in range(CASES)]
    process = subprocess.run(
        [jdk.find().java, "-cp", kotlin_jars, SOURCE],
        input=struct.pack(">i", len(cases)) + b"".join(case.packed() for case in cases),
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    answers = _unpacked(process.stdout, len(cases))
    return [(case, _expected(case), answer) for case, answer in zip(cases, answers, strict=True)]


def test_the_cases_reach_every_step(compared: list[tuple[Case, Answer, Answer]]) -> None:
    assert sum(len(expected.ids) == 0 for _, expected, _ in compared) >= 3
    assert sum(len(expected.ids) > 1000 for _, expected, _ in compared) >= 20
    assert sum(len(set(expected.draws)) > 5 for _, expected, _ in compared) >= 50
    neutral = Case(np.zeros(1, dtype=np.float32))
    for name in ["top_p", "top_k", "min_p", "typical_p", "repetition", "frequency", "presence"]:
        changed = [case for case, *_ in compared if getattr(case, name) != getattr(neutral, name)]
        assert len(changed) >= 100, name


def test_the_same_tokens_are_kept(compared: list[tuple[Case, Answer, Answer]]) -> None:
    for number, (case, expected, answer) in enumerate(compared):
        assert answer.ids.tolist() == expected.ids.tolist(), (number, case)


def test_they_have_the_same_probabilities(compared: list[tuple[Case, Answer, Answer]]) -> None:
    for _, expected, answer in compared:
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, rtol=TOLERANCE)


def test_the_same_seed_draws_the_same_tokens(compared: list[tuple[Case, Answer, Answer]]) -> None:
    for number, (case, expected, answer) in enumerate(compared):
        assert answer.draws == expected.draws, (number, case)
