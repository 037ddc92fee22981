"""What all families share: an embedding, layers, a last norm and a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from harness.compiler.architectures.ops import Activation, Input, Ops, Residual
from harness.compiler.architectures.parameters import Matrix, Parameter, Vector, matrix, vector
from harness.compiler.checkpoints.config_keys import ConfigKeys
from harness.compiler.model_config import DecoderConfig

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"
FINAL_NORM = "model.norm.weight"


class Decoder(ABC):
    """A family's equations for one configuration. Subclasses say what a layer is."""

    family: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    """What config.json calls the family in `model_type`."""
    activation: ClassVar[Activation]
    """The gate's function in the MLP."""
    norm_offset: ClassVar[float] = 0.0
    """What the family adds to the stored weights of its norms."""
    head_norms: ClassVar[bool] = False
    """Whether each head of q and k goes through an RMS norm before it is rotated."""
    qkv: ClassVar[str] = "qkv_proj"
    """What MLC calls the family's fused q, k and v projection."""

    def __init__(self, config: DecoderConfig) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def configure(cls, keys: ConfigKeys) -> DecoderConfig:
        """The configuration in the keys of Hugging Face's config.json."""

    @abstractmethod
    def layer_parameters(self, layer: int) -> list[Parameter]:
        """What a layer takes, in order."""

    @abstractmethod
    def layer(self, ops: Ops, layer: int, x: Residual) -> Residual:
        """One layer of the residual stream."""

    def embed(self, ops: Ops) -> Residual:
        """The residual stream of the new tokens, before the first layer."""
        return ops.embed(EMBEDDING)

    def final(self, ops: Ops, x: Residual) -> Input:
        """What the head reads."""
        return ops.norm(x, FINAL_NORM)

    def logits(self, ops: Ops, x: Input) -> Any:
        """The scores of the next token."""
        return ops.logits(self.head, x, softcap=self.config.final_softcap)

    def attention(self, ops: Ops, layer: int, x: Input) -> Input:
        """A layer's heads over the tokens so far, side by side: what o reads."""
        name = f"model.layers.{layer}.self_attn"
        return ops.attention(
            layer,
            x,
            f"{name}.{self.qkv}",
            bias=f"{name}.{self.qkv}.bias" if self.config.attention_bias else None,
            q_norm=f"{name}.q_norm.weight" if self.head_norms else None,
            k_norm=f"{name}.k_norm.weight" if self.head_norms else None,
        )

    @property
    def rotates(self) -> bool:
        """Whether q and k are rotated before the cache, which rotates all layers alike."""
        return self.head_norms or self.config.local_rope is not None

    @property
    def head(self) -> str:
        """The matrix that gives the logits."""
        return EMBEDDING if self.config.tie_word_embeddings else HEAD

    def parameters(self) -> list[Parameter]:
        """Everything that the library takes, in order."""
        config = self.config
        found: list[Parameter] = [matrix(EMBEDDING, config.vocab_size, config.hidden_size)]
        for layer in range(config.num_hidden_layers):
            found += self.layer_parameters(layer)
        found.append(self.norm_parameter(FINAL_NORM, config.hidden_size))
        if not config.tie_word_embeddings:
            found.append(matrix(HEAD, config.vocab_size, config.hidden_size))
        return found

    def matrices(self) -> list[Matrix]:
        """The parameters that are matrices."""
        return [item for item in self.parameters() if isinstance(item, Matrix)]

    def norm_parameter(self, name: str, size: int) -> Parameter:
        """A norm's weight."""
        return vector(name, size, offset=self.norm_offset)

    def attention_parameters(self, prefix: str) -> list[Parameter]:
        """The fused q, k and v projection with its bias, o, and the norms of heads."""
        config = self.config
        parts = [f"{prefix}.{part}_proj" for part in "qkv"]
        weights, biases = (tuple(f"{part}.{kind}" for part in parts) for kind in ("weight", "bias"))
        fused, rows = f"{prefix}.{self.qkv}", config.qkv_rows
        mixed = config.num_attention_heads * config.head_dim
        found: list[Parameter] = [Matrix(fused, rows, config.hidden_size, weights)]
        if config.attention_bias:
            found.append(Vector(f"{fused}.bias", rows, biases))
        if self.head_norms:
            found += [
                self.norm_parameter(f"{prefix}.{part}_norm.weight", config.head_dim)
                for part in "qk"
            ]
        return [*found, matrix(f"{prefix}.o_proj", config.hidden_size, mixed)]

    def mlp_parameters(self, prefix: str) -> list[Parameter]:
        """The fused gate and up projection, and down."""
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        weights = (f"{prefix}.gate_proj.weight", f"{prefix}.up_proj.weight")
        return [
            Matrix(f"{prefix}.gate_up_proj", 2 * inner, hidden, weights),
            matrix(f"{prefix}.down_proj", hidden, inner),
        ]
