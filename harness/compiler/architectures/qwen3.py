"""Qwen 3 (Yang et al. 2025): Llama's layers, where each head of q and k is normed first.

q = rope(norm(q)), k = rope(norm(k))
"""

from __future__ import annotations

from harness.compiler.architectures.llama import Llama
from harness.compiler.architectures.qwen2 import upper_windows
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig


class Qwen3(Llama):
    """Llama with norms of heads, whose size is a number of its own."""

    family = "qwen3"
    model_types = ("qwen3",)
    qkv = "c_attn"
    head_norms = True

    @classmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        keys = keys.defaulting(head_dim=128)
        return keys.decoder(cls.family, **upper_windows(keys))
