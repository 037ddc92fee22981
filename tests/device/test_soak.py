"""What is made of a soak's numbers: each thing that can go wrong is named, and noise is not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.device import call
from harness.device.app import App
from harness.device.soak import Soak

LIMITS = {"pss_kb": 2.0, "java_kb": 0.5}


def result(**changes: Any) -> dict[str, Any]:
    """A good soak of 60 generations in 20 rounds, whose process is still growing in the first."""
    samples = [
        {
            "generations": 3 * (round_ + 1),
            "kv_bytes_used": 0,
            "pss_kb": 90000 + min(round_, 5) * 400 + round_ % 2 * 64,
            "java_kb": 4000 + round_ % 3,
            "handles": 70,
            "threads": 3,
            "files": 40,
        }
        for round_ in range(20)
    ]
    soak = {
        "generations": 60,
        "tokens": 300,
        "counts": {"end_length": 60},
        "evictions": 0,
        "differing": 0,
        "examples": [],
        "samples": samples,
        **changes,
    }
    return {"soak": soak, "left": {"threads": [], "files": []}}


def test_a_good_soak_has_no_faults() -> None:
    soak = Soak.of(result())
    assert soak.faults(**LIMITS) == []
    assert soak.slope("java_kb") == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(("name", "step"), [("pss_kb", 12), ("java_kb", 3)])
def test_growth_is_a_fault(name: str, step: int) -> None:
    document = result()
    for round_, sample in enumerate(document["soak"]["samples"]):
        sample[name] += step * round_
    soak = Soak.of(document)
    assert soak.slope(name) == pytest.approx(step / 3, rel=0.1)
    (fault,) = soak.faults(**LIMITS)
    assert fault.startswith(f"{name} grows by ")


@pytest.mark.parametrize("name", ["kv_bytes_used", "handles", "threads", "files"])
def test_what_must_stay_the_same_is_a_fault_where_it_does_not(name: str) -> None:
    document = result()
    document["soak"]["samples"][7][name] += 1
    (fault,) = Soak.of(document).faults(**LIMITS)
    assert fault.startswith(f"{name} is not the same after every round")


def test_a_cache_that_is_never_given_back_is_a_fault() -> None:
    document = result()
    for sample in document["soak"]["samples"]:
        sample["kv_bytes_used"] = 4096
    assert Soak.of(document).faults(**LIMITS) == ["4096 bytes of KV cache are still in use"]


def test_other_answers_evictions_and_what_is_left_are_faults() -> None:
    document = result(differing=1, examples=[{"generation": 4}], evictions=2)
    document["left"] = {"threads": ["alc-decode"], "files": ["/data/x"]}
    found = Soak.of(document).faults(**LIMITS)
    assert len(found) == 4
    assert "generation" in found[0] and "evicted" in found[1]
    assert found[2:] == [
        "threads left after the end: ['alc-decode']",
        "files left after the end: ['/data/x']",
    ]


def test_the_app_is_asked_for_a_soak(phone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "LAG_SECONDS", 0.3)
    monkeypatch.setattr(call, "POLL_SECONDS", 0.02)
    asked: list[dict[str, Any]] = []

    def play(self: Any, request: dict[str, Any]) -> None:
        asked.append(request)
        self.record({"t": "begin", "proto": 1, "run": self.run})
        self.end()
        self.result(verb="soak", **result())
        self.finish()

    phone.script = play
    soak = App(phone, model="m").soak(60, seed=5, max_tokens=8)
    assert asked[0]["verb"] == "soak"
    assert asked[0]["soak"] == {
        "generations": 60,
        "seed": 5,
        "conversations": 3,
        "max_tokens": 8,
    }
    assert soak.generations == 60 and soak.counts == {"end_length": 60}
