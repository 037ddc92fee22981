"""The numbers that make one model of an architecture, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass

PAGE_TOKENS = 16
"""Tokens in a page of the KV cache."""


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """A decoder of Llama's form: RMS norms, rotary positions, grouped-query attention, SwiGLU."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    context_window: int
    """Positions the model was trained for."""
    tie_word_embeddings: bool
    """Whether the output head is the embedding table."""

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
