"""What a soak of the engine found: answers that differ, and what grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import stats

# Up to this share of the samples caches fill and the virtual machine compiles what runs often.
SETTLED = 1 / 2
# What must be the same after every round; PSS and Java's heap have a slope instead.
COUNTED = ("kv_bytes_used", "handles", "threads", "files")


@dataclass(frozen=True)
class Soak:
    """A soak's answer: `samples` are taken between rounds, when nothing runs and nothing is kept.

    `counts` says how many generations were of each kind and ended how, `left` which threads and
    files were still open after the engine was closed.
    """

    generations: int
    tokens: int
    counts: Mapping[str, int]
    evictions: int
    differing: int
    examples: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, int]]
    left: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Soak:
        """The soak of a result document."""
        return cls(**result["soak"], left=result["left"])

    def slope(self, name: str) -> float:
        """KiB (of `pss_kb` or `java_kb`) that each generation adds once everything has settled."""
        settled = self.samples[int(len(self.samples) * SETTLED) :]
        return stats.trend(
            [sample["generations"] for sample in settled], [sample[name] for sample in settled]
        )

    def faults(self, *, pss_kb: float, java_kb: float) -> list[str]:
        """What is not as it should be, in words; nothing in a good soak.

        `pss_kb` and `java_kb` are the steepest slopes that pass, in KiB a generation.
        """
        found = []
        if self.differing:
            found.append(f"{self.differing} answers are not what they are alone: {self.examples}")
        if self.evictions:
            found.append(f"{self.evictions} caches were evicted, so answers cannot be compared")
        for name in COUNTED:
            values = [sample[name] for sample in self.samples]
            if len(set(values)) > 1:
                found.append(f"{name} is not the same after every round: {values}")
        if self.samples[-1]["kv_bytes_used"]:
            found.append(f"{self.samples[-1]['kv_bytes_used']} bytes of KV cache are still in use")
        found += [
            f"{kind} left after the end: {names}" for kind, names in self.left.items() if names
        ]
        for name, limit in (("pss_kb", pss_kb), ("java_kb", java_kb)):
            if self.slope(name) > limit:
                values = [sample[name] for sample in self.samples]
                found.append(f"{name} grows by {self.slope(name):.2f} a generation: {values}")
        return found
