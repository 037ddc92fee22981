"""The parameters of a model library: which tensors it takes, made of which of a checkpoint.

Names are MLC's; matrices that are multiplied with the same input are fused as MLC fuses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compiler.model_config import LlamaConfig

SUFFIX = ".rows8"
"""Ends the names of packed tensors, so that no reader of MLC's plain layout takes them for it."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A parameter kept in float32, such as a norm's weight."""

    name: str
    size: int

    @property
    def source(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix [rows, columns]: the rows of `sources`, one below the other."""

    name: str
    rows: int
    columns: int
    sources: tuple[str, ...]

    def tensor(self, part: str) -> str:
        """The name of one of its packed tensors."""
        return f"{self.name}.{part}{SUFFIX}"


def llama_parameters(config: LlamaConfig) -> list[Vector | Matrix]:
    """Everything that a Llama's library takes, in order."""
    hidden, inner = config.hidden_size, config.intermediate_size
    embed = "model.embed_tokens"
    found: list[Vector | Matrix] = [_matrix(embed, config.vocab_size, hidden)]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        qkv = tuple(f"{attention}.{part}_proj.weight" for part in "qkv")
        gate_up = (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight")
        mixed = config.num_attention_heads * config.head_dim
        found += [
            Vector(f"{prefix}.input_layernorm.weight", hidden),
            Matrix(f"{attention}.qkv_proj", config.qkv_rows, hidden, qkv),
            _matrix(f"{attention}.o_proj", hidden, mixed),
            Vector(f"{prefix}.post_attention_layernorm.weight", hidden),
            Matrix(f"{mlp}.gate_up_proj", 2 * inner, hidden, gate_up),
            _matrix(f"{mlp}.down_proj", hidden, inner),
        ]
    found.append(Vector("model.norm.weight", hidden))
    if not config.tie_word_embeddings:
        found.append(_matrix("lm_head", config.vocab_size, hidden))
    return found


def _matrix(name: str, rows: int, columns: int) -> Matrix:
    return Matrix(name, rows, columns, (f"{name}.weight",))
