"""Gemma (Gemma Team 2024): Llama's layers with GELU, a scaled embedding and other norms.

x = sqrt(hidden) * embedding
h = x + attention(norm(x))
y = h + down(gelu(gate(norm(h))) * up(norm(h)))

A norm multiplies with 1 + its stored weight.
"""

from __future__ import annotations

import math

from harness.compiler.architectures.decoder import EMBEDDING
from harness.compiler.architectures.llama import Llama
from harness.compiler.architectures.ops import Ops, Residual
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig


class Gemma(Llama):
    """Pre-norm layers, a GeGLU MLP, one table for embedding and head."""

    family = "gemma"
    model_types = ("gemma",)
    norm_offset = 1.0
    activation = "gelu_tanh"

    @classmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        keys = keys.defaulting(head_dim=256, tie_word_embeddings=True)
        return keys.decoder(cls.family)

    def embed(self, ops: Ops) -> Residual:
        # transformers rounds the factor to the type it computes in; here, that is float32.
        return ops.embed(EMBEDDING, math.sqrt(self.config.hidden_size))
