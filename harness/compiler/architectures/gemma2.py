"""Gemma 2 (Gemma Team 2024): norms after as well as before, soft caps, alternating windows.

h = x + norm(attention(norm(x)))
y = h + norm(down(gelu(gate(norm(h))) * up(norm(h))))

Scores and logits s become cap * tanh(s / cap).
"""

from __future__ import annotations

from harness.compiler.architectures.gemma import Gemma
from harness.compiler.architectures.ops import Ops, Residual
from harness.compiler.architectures.parameters import Parameter
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


class Gemma2(Gemma):
    """Gemma with a norm around each half of a layer; every other layer is windowed."""

    family = "gemma2"
    model_types = ("gemma2",)

    @classmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        keys = keys.defaulting(head_dim=256, tie_word_embeddings=True)
        return keys.decoder(
            cls.family,
            query_scale=keys.number("query_pre_attn_scalar", 256) ** -0.5,
            attention_softcap=keys.optional_number("attn_logit_softcapping"),
            final_softcap=keys.optional_number("final_logit_softcapping"),
            **keys.windows(lambda layer: layer % 2 == 0),
        )

    def layer_parameters(self, layer: int) -> list[Parameter]:
        prefix, hidden = f"model.layers.{layer}", self.config.hidden_size
        return [
            *self.attention_parameters(f"{prefix}.self_attn"),
            *self.mlp_parameters(f"{prefix}.mlp"),
            *(self.norm_parameter(f"{prefix}.{norm}.weight", hidden) for norm in _NORMS),
        ]

    def layer(self, ops: Ops, layer: int, x: Residual) -> Residual:
        name = f"model.layers.{layer}"
        before, after, before_mlp, after_mlp = (f"{name}.{norm}.weight" for norm in _NORMS)
        mixed = self.attention(ops, layer, ops.norm(x, before))
        x = ops.add_norm(x, ops.linear(f"{name}.self_attn.o_proj", mixed), after)
        inner = ops.gated(f"{name}.mlp.gate_up_proj", ops.norm(x, before_mlp), self.activation)
        return ops.add_norm(x, ops.linear(f"{name}.mlp.down_proj", inner), after_mlp)
