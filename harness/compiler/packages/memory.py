"""How much memory the engine uses for a model and a context, and which context fits a budget.

Counted is what the engine adds to its process once a conversation fills the whole context: the
mapped weights, the pages of the KV cache, the buffers that the model's functions and the cache
work in, and the library with the machine that runs it. The app around the engine is not counted,
nor is `batch_verify`, which only `harness verify` calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.compiler.model_config import PAGE_TOKENS, DecoderConfig
from harness.errors import UsageError

MIB = 1 << 20
# The virtual machine, its threads and the runtime's pages that running a model brings in, as
# measured on a model of almost no size.
MACHINE_BYTES = 1 * MIB
KV_BYTES = {"float16": 2, "float32": 4}
_FLOAT = 4


@dataclass(frozen=True)
class Footprint:
    """What a package takes in bytes, apart from its context."""

    weights: int
    workspace: int
    overhead: int
    kv_bytes_per_token: int

    def kv_cache(self, context: int) -> int:
        """The cache's pages for `context` tokens; TVM adds one (paged_kv_cache.cc)."""
        pages = -(-context // PAGE_TOKENS) + 1
        return pages * PAGE_TOKENS * self.kv_bytes_per_token

    def total(self, context: int) -> int:
        """Bytes with a conversation of `context` tokens."""
        return self.weights + self.kv_cache(context) + self.workspace + self.overhead

    def largest_context(self, budget: int) -> int:
        """The most tokens, in whole pages, for which `budget` bytes are enough; 0 if none are."""
        page = PAGE_TOKENS * self.kv_bytes_per_token
        return max(0, (budget - self.total(0)) // page) * PAGE_TOKENS

    def document(self, context: int) -> dict[str, int]:
        """As `package.json` has it."""
        return {
            "context": context,
            "weights": self.weights,
            "kv_cache": self.kv_cache(context),
            "workspace": self.workspace,
            "overhead": self.overhead,
            "total": self.total(context),
        }


def footprint(
    config: DecoderConfig,
    *,
    kv_dtype: str,
    prefill_chunk: int,
    weights_bytes: int,
    planned: Iterable[Mapping[str, int]],
    library_bytes: int,
) -> Footprint:
    """What a package takes; `planned` are the bytes that the functions of each library plan.

    Of several libraries the one that needs most counts.
    """
    functions = ("embed", "prefill", "decode")
    buffers = max(sum(sizes[name] for name in functions) for sizes in planned)
    return Footprint(
        weights=weights_bytes,
        workspace=buffers
        + _between(config, prefill_chunk)
        + _cache(config, kv_dtype, prefill_chunk),
        overhead=MACHINE_BYTES + library_bytes,
        kv_bytes_per_token=kv_bytes_per_token(config, kv_dtype),
    )


def kv_bytes_per_token(config: DecoderConfig, kv_dtype: str) -> int:
    """Bytes of keys and values that all layers keep for one token."""
    values = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
    return values * KV_BYTES[kv_dtype]


def context_within(
    footprint: Footprint, context: int, *, least: int, may_shrink: bool, budget: int
) -> int:
    """`context` or, where it may shrink, the largest that `budget` bytes are enough for.

    Raises `UsageError` if it may not, or if fewer than `least` tokens would be left.
    """
    if footprint.total(context) <= budget:
        return context
    most = footprint.largest_context(budget)
    if may_shrink and most >= least:
        return most
    parts = footprint.document(context)
    listed = ", ".join(
        f"{name} {parts[key] / MIB:.1f}"
        for key, name in (
            ("weights", "weights"),
            ("kv_cache", f"KV cache of {context} tokens"),
            ("workspace", "workspace"),
            ("overhead", "overhead"),
        )
    )
    raise UsageError(
        f"{parts['total'] / MIB:.0f} MiB do not fit the budget of {budget / MIB:.0f} MiB",
        cause=f"in MiB: {listed}",
        remedy=f"--context {most}" if most >= least else _remedy(footprint.total(least)),
    )


def _remedy(needed: int) -> str:
    return f"--memory-budget {-(-needed // MIB)}, a smaller --quant or a smaller model"


def _between(config: DecoderConfig, prefill_chunk: int) -> int:
    """What is passed from function to function: embeddings, and logits of the last two calls."""
    rows = prefill_chunk + 1
    return (rows * config.hidden_size + 2 * config.vocab_size) * _FLOAT


def _cache(config: DecoderConfig, kv_dtype: str, prefill_chunk: int) -> int:
    """What TVM's cache works in: q, k, v and output of a chunk and two floats for each head."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    values = 2 * (heads + kv_heads) * config.head_dim
    return prefill_chunk * (values * KV_BYTES[kv_dtype] + 2 * heads * _FLOAT)
