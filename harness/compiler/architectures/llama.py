"""Llama (Touvron et al. 2023) and what shares its form: TinyLlama, SmolLM2, Llama 3.

h = x + attention(norm(x))
y = h + down(silu(gate(norm(h))) * up(norm(h)))
"""

from __future__ import annotations

from typing import ClassVar

from harness.compiler.architectures.decoder import Decoder
from harness.compiler.architectures.ops import Activation, Ops, Residual
from harness.compiler.architectures.parameters import Parameter
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig


class Llama(Decoder):
    """Pre-norm layers, rotary positions, a SwiGLU MLP."""

    family = "llama"
    model_types = ("llama",)
    activation: ClassVar[Activation] = "silu"

    @classmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        return keys.decoder(cls.family)

    def layer_parameters(self, layer: int) -> list[Parameter]:
        prefix, hidden = f"model.layers.{layer}", self.config.hidden_size
        return [
            self.norm_parameter(f"{prefix}.input_layernorm.weight", hidden),
            *self.attention_parameters(f"{prefix}.self_attn"),
            self.norm_parameter(f"{prefix}.post_attention_layernorm.weight", hidden),
            *self.mlp_parameters(f"{prefix}.mlp"),
        ]

    def layer(self, ops: Ops, layer: int, x: Residual) -> Residual:
        name = f"model.layers.{layer}"
        h = ops.norm(x, f"{name}.input_layernorm.weight")
        mixed = self.attention(ops, layer, h)
        x = ops.linear(f"{name}.self_attn.o_proj", mixed, residual=x)
        h = ops.norm(x, f"{name}.post_attention_layernorm.weight")
        inner = ops.gated(f"{name}.mlp.gate_up_proj", h, self.activation)
        return ops.linear(f"{name}.mlp.down_proj", inner, residual=x)
