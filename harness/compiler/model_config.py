"""The numbers that make one model of a family, whatever file they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PAGE_TOKENS = 16
"""Tokens in a page of the KV cache."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary positions are stretched to a longer context than the model began with."""

    kind: str
    """`linear` or `llama3`."""
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) over a whole head, in the half-rotation form."""

    theta: float
    scaling: RopeScaling | None = None

    def frequencies(self, head_dim: int) -> tuple[float, ...]:
        """The angle a position, in radians, of each of the head's `head_dim / 2` pairs."""
        half = head_dim // 2
        plain = [self.theta ** (-i / half) for i in range(half)]
        return tuple(plain if self.scaling is None else map(self._scaled, plain))

    def _scaled(self, frequency: float) -> float:
        # transformers, modeling_rope_utils.py: `linear` and `llama3`.
        scaling = self.scaling
        assert scaling is not None
        if scaling.kind == "linear":
            return frequency / scaling.factor
        turns = scaling.original_context * frequency / (2 * math.pi)
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return frequency * (kept + (1 - kept) / scaling.factor)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder with RMS norms, rotary positions, grouped-query attention and a gated MLP."""

    family: str
    """The name under which `architectures` knows its equations."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    context_window: int
    """Positions the model was trained for."""
    tie_word_embeddings: bool
    """Whether the output head is the embedding table."""
    query_scale: float
    """What attention scores are multiplied with."""
    rope: Rope
    local_rope: Rope | None = None
    """The windowed layers' own rotary positions, where they differ."""
    sliding_window: int | None = None
    """A query at position p of a windowed layer sees the keys in (p - window, p]."""
    windowed_layers: tuple[bool, ...] = ()
    """One for each layer; empty if none has a window."""
    attention_softcap: float | None = None
    """Scores s become cap * tanh(s / cap)."""
    final_softcap: float | None = None
    attention_bias: bool = False
    """Whether the q, k and v projections add a bias."""

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim

    def window(self, layer: int) -> int | None:
        """How many keys a query of this layer sees at most; None for all."""
        return self.sliding_window if any(self.windowed_layers[layer : layer + 1]) else None

    def layer_rope(self, layer: int) -> Rope:
        """The rotary positions of a layer."""
        local = self.window(layer) is not None and self.local_rope is not None
        return self.local_rope if local and self.local_rope else self.rope

    def to_json(self) -> dict[str, Any]:
        """As a JSON document has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """The inverse of `to_json`."""
        known = dict(values)
        for name in ("rope", "local_rope"):
            if known.get(name) is not None:
                scaling = known[name]["scaling"]
                known[name] = Rope(
                    known[name]["theta"], None if scaling is None else RopeScaling(**scaling)
                )
        known["windowed_layers"] = tuple(known.get("windowed_layers", ()))
        return cls(**known)
