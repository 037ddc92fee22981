"""Nothing leaks, neither memory nor KV cache, and the model takes what its package says."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import pytest

from harness.device.app import App, Step
from harness.device.call import Reply
from harness.pytest_plugin import Model

GENERATIONS = 20
# From here on caches are filled and what runs often is compiled.
SETTLED = 5
TOKENS = 4
# What a generation may add, with garbage that nobody has collected yet. One leaked tensor of
# logits for each token would be more, with a vocabulary of 49152 as well.
GROWTH_KB = 768


@pytest.fixture(scope="module")
def reply(app: App) -> Reply:
    """Short conversations, one after the other, none of them kept."""
    steps = [
        Step(
            f"m{number}",
            f"{number} and",
            conversation=f"m{number}",
            template=False,
            max_tokens=TOKENS,
            keep=False,
        )
        for number in range(GENERATIONS)
    ]
    return app.generate(steps)


@pytest.fixture(scope="module")
def used(reply: Reply) -> list[int]:
    """The app's memory in KiB after the load and after each generation."""
    samples = [record["pss_kb"] for record in reply.records if record["t"] == "memory"]
    assert len(samples) > GENERATIONS, "memory was not sampled after the load and each generation"
    return samples[-GENERATIONS - 1 :]


def test_nothing_leaks_over_twenty_generations(reply: Reply, used: list[int]) -> None:
    assert len(reply.result["steps"]) == GENERATIONS
    assert reply.result["memory"]["kv_bytes_used"] == 0
    # The median, as a virtual machine takes a large piece for itself now and then.
    growth = median(after - before for before, after in pairwise(used[SETTLED:]))
    assert growth < GROWTH_KB, f"PSS grew by {growth:.0f} KiB with each generation: {used}"


def test_the_model_takes_the_memory_that_its_package_says(used: list[int], model: Model) -> None:
    """But for the cache, of which so short a text fills almost nothing."""
    memory = model.facts()["memory"]
    predicted = memory["total"] - memory["kv_cache"]
    assert (used[1] - used[0]) * 1024 == pytest.approx(predicted, rel=0.1)
