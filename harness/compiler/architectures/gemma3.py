"""Gemma 3 (Gemma Team 2025), its text part: Gemma 2's layers with norms of heads.

q = rope(norm(q)), k = rope(norm(k))

Most layers are windowed and rotate with another base than the others.
"""

from __future__ import annotations

from harness.compiler.architectures.gemma2 import Gemma2
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig


class Gemma3(Gemma2):
    """Gemma 2 without soft caps: every sixth layer sees all of the text."""

    family = "gemma3"
    model_types = ("gemma3_text",)
    head_norms = True

    @classmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        # What transformers' Gemma3TextConfig has where a multimodal checkpoint says nothing.
        keys = keys.defaulting(
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            vocab_size=262208,
            max_position_embeddings=131072,
            rms_norm_eps=1e-6,
            rope_theta=1e6,
            sliding_window=4096,
            tie_word_embeddings=True,
        )
        period = keys.integer("sliding_window_pattern", 6)
        return keys.decoder(
            cls.family,
            query_scale=keys.number("query_pre_attn_scalar", 256) ** -0.5,
            attention_softcap=keys.optional_number("attn_logit_softcapping"),
            final_softcap=keys.optional_number("final_logit_softcapping"),
            local_rope=keys.local_rope(10000.0),
            **keys.windows(lambda layer: (layer + 1) % period != 0),
        )
