"""Nothing leaks: not memory, not KV cache."""

from __future__ import annotations

from harness.device.app import App, Step

GENERATIONS = 20
# The garbage collectors of a JVM and of ART let a heap breathe; a leaked KV cache page or a
# leaked tensor of logits in each generation would be more than this.
SLACK_KB = 24 * 1024


def test_nothing_leaks_over_twenty_generations(app: App) -> None:
    steps = [
        Step(f"m{number}", f"Say {number}.", conversation=f"m{number}", max_tokens=4, keep=False)
        for number in range(GENERATIONS)
    ]
    reply = app.generate(steps)
    assert len(reply.result["steps"]) == GENERATIONS
    memory = reply.result["memory"]
    assert memory["kv_bytes_used"] == 0
    used = [record["pss_kb"] for record in reply.records if record["t"] == "memory"]
    assert len(used) >= GENERATIONS, "memory was not sampled after each generation"
    # The first generations fill caches and warm up the compiler.
    settled = max(used[: GENERATIONS // 2])
    assert used[-1] <= settled + SLACK_KB, f"PSS grew from {settled} to {used[-1]} KiB"
