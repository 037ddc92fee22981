"""Nothing leaks: not memory, not KV cache."""

from __future__ import annotations

from harness.device.app import App, Step

GENERATIONS = 20
# From here on caches are filled and what runs often is compiled.
SETTLED = 5
TOKENS = 4
# What a generation may add, with garbage that nobody has collected yet. One leaked tensor of
# logits for each token would be more, with a vocabulary of 49152 as well.
GROWTH_KB = 768


def test_nothing_leaks_over_twenty_generations(app: App) -> None:
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
    reply = app.generate(steps)
    assert len(reply.result["steps"]) == GENERATIONS
    assert reply.result["memory"]["kv_bytes_used"] == 0
    used = [record["pss_kb"] for record in reply.records if record["t"] == "memory"]
    assert len(used) > GENERATIONS, "memory was not sampled after the load and each generation"
    after = used[-GENERATIONS:]
    growth = (after[-1] - after[SETTLED - 1]) / (GENERATIONS - SETTLED)
    assert growth < GROWTH_KB, f"PSS grew by {growth:.0f} KiB with each generation: {used}"
