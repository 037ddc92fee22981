"""Nothing leaks: not memory, not KV cache."""

from __future__ import annotations

from harness.device.app import App, Step

GENERATIONS = 20
# From here on caches are filled and what runs often is compiled.
SETTLED = 5
# What a generation of eight tokens may add, garbage that nobody has collected yet included. The
# logits that one of them leaked would be more on any real vocabulary.
GROWTH_KB = 1024


def test_nothing_leaks_over_twenty_generations(app: App) -> None:
    steps = [
        Step(f"m{number}", f"Say {number}.", conversation=f"m{number}", max_tokens=8, keep=False)
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
