"""Qwen 2 (Yang et al. 2024) and Qwen 2.5: Llama's layers, where q, k and v add a bias."""

from __future__ import annotations

from harness.compiler.architectures.llama import Llama
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig


class Qwen2(Llama):
    """Llama with biases in attention, and windows in the upper layers if the file asks for them."""

    family = "qwen2"
    model_types = ("qwen2",)
    qkv = "c_attn"

    @classmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        return keys.decoder(cls.family, attention_bias=True, **upper_windows(keys))


def upper_windows(keys: ConfigKeys) -> dict[str, object]:
    """The windows of Qwen's configurations: unless asked for, there are none."""
    if not keys.flag("use_sliding_window", False):
        return {}
    first = keys.integer("max_window_layers", least=0)
    return keys.windows(lambda layer: layer >= first)
