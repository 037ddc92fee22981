"""Llama in Relax, over the packed kernels and the paged KV cache.

Any model of Llama's form is built from its `LlamaConfig`; no number of a particular model is here.
The functions have MLC's names and take one sequence at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import IRModule, relax, tirx

from harness.compiler.architectures.blocks import Blocks, Kernels, Parameters
from harness.compiler.architectures.parameters import Matrix, llama_parameters
from harness.compiler.kernels import kv_cache
from harness.compiler.kernels.attention import Heads
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.model_config import LlamaConfig


class Llama:
    """Builds the functions of one model for one instruction set.

    `formats` gives the weight format of each matrix by its name.
    """

    def __init__(
        self, config: LlamaConfig, formats: Mapping[str, WeightFormat], kv_dtype: str, isa: Isa
    ) -> None:
        self.config = config
        self.kv_dtype = kv_dtype
        self.builder = relax.BlockBuilder()
        self.kernels = Kernels(self.builder, isa)
        items = llama_parameters(config)
        self.parameters = Parameters(items, formats)
        self.matrices = {item.name: item for item in items if isinstance(item, Matrix)}

    def module(self, prefill_chunk: int) -> IRModule:
        """All functions; at most `prefill_chunk` tokens go through one call."""
        bounds = {"tir_var_upper_bound": {"n": prefill_chunk}}
        self._embed(bounds)
        self._forward("prefill", bounds, tokens=None, last_only=True)
        self._forward("decode", {}, tokens=1, last_only=False)
        self._forward("batch_verify", bounds, tokens=None, last_only=False)
        self._create_kv_cache()
        return self.builder.finalize()

    def _embed(self, attrs: dict[str, Any]) -> None:
        n = tirx.Var("n", "int64")
        tokens = relax.Var("tokens", relax.TensorType((n,), "int32"))
        params = self.parameters.variable()
        with self.builder.function("embed", [tokens, params], attrs=attrs):
            with self.builder.dataflow():
                blocks = Blocks(self.kernels, self.parameters, params, None, n)
                rows = blocks.embed(self.matrices["model.embed_tokens"], tokens)
                out = self.builder.emit_output(rows)
            self.builder.emit_func_output(out)

    def _forward(
        self, name: str, attrs: dict[str, Any], *, tokens: int | None, last_only: bool
    ) -> None:
        """A function of embeddings [1, n, hidden] to (logits [1, n or 1, vocab], kv)."""
        config = self.config
        n: Any = tirx.Var("n", "int64") if tokens is None else tokens
        shape = (1, n, config.hidden_size)
        embeds = relax.Var("embeds", relax.TensorType(shape, "float32"))
        kv = relax.Var("paged_kv_cache", relax.AnyType())
        params = self.parameters.variable()
        with self.builder.function(name, [embeds, kv, params], attrs=attrs):
            with self.builder.dataflow():
                blocks = Blocks(self.kernels, self.parameters, params, tokens, n)
                x = blocks.reshape(embeds, (n, config.hidden_size))
                for layer in range(config.num_hidden_layers):
                    x = self._layer(blocks, layer, x, kv)
                if last_only:
                    x = blocks.last_row(x, config.hidden_size)
                    blocks = blocks.single()
                final = blocks.norm(x, "model.norm.weight", config.rms_norm_eps, self._head)
                logits = blocks.matmul(self._head, final)
                logits = blocks.reshape(logits, (1, blocks.n, config.vocab_size))
                out = self.builder.emit_output(relax.Tuple([logits, kv]))
            self.builder.emit_func_output(out)

    @property
    def _head(self) -> Matrix:
        tied = self.config.tie_word_embeddings
        return self.matrices["model.embed_tokens" if tied else "lm_head"]

    def _layer(self, blocks: Blocks, layer: int, x: relax.Expr, kv: relax.Var) -> relax.Expr:
        config = self.config
        prefix = f"model.layers.{layer}"
        qkv, o, gate_up, down = (
            self.matrices[f"{prefix}.{name}"]
            for name in (
                "self_attn.qkv_proj",
                "self_attn.o_proj",
                "mlp.gate_up_proj",
                "mlp.down_proj",
            )
        )
        h = blocks.norm(x, f"{prefix}.input_layernorm.weight", config.rms_norm_eps, qkv)
        fused = blocks.matmul(qkv, h, dtype=self.kv_dtype)
        mixed = self._attention(blocks, layer, fused, kv)
        x = blocks.matmul(o, blocks.activation(mixed, o), residual=x)
        h = blocks.norm(
            x, f"{prefix}.post_attention_layernorm.weight", config.rms_norm_eps, gate_up
        )
        inner = blocks.gated_matmul(gate_up, h)
        return blocks.matmul(down, blocks.activation(inner, down), residual=x)

    def _attention(
        self, blocks: Blocks, layer: int, fused: relax.Expr, kv: relax.Var
    ) -> relax.Expr:
        """Queries, keys and values [n, qkv_rows] to the mix of values [n, heads * head_dim]."""
        config = self.config
        heads = config.num_attention_heads
        rows = heads + 2 * config.num_key_value_heads
        mixed = blocks.attention(
            kv,
            layer,
            blocks.reshape(fused, (blocks.n, rows, config.head_dim)),
            heads,
            1 / math.sqrt(config.head_dim),
        )
        return blocks.reshape(mixed, (blocks.n, heads * config.head_dim))

    def _create_kv_cache(self) -> None:
        """A function of five shapes of one number each, named and ordered as MLC's."""
        config, half = self.config, self.config.head_dim // 2
        heads = Heads(
            config.num_attention_heads, config.num_key_value_heads, config.head_dim, self.kv_dtype
        )
        names = (
            "max_batch",
            "max_total_tokens",
            "prefill_chunk",
            "page_size",
            "support_sliding_window",
        )
        sizes = {name: tirx.Var(name, "int64") for name in names}
        shapes = [
            relax.Var(f"{name}_", relax.ShapeType(values=[size])) for name, size in sizes.items()
        ]
        with self.builder.function("create_tir_paged_kv_cache", shapes):
            cache = kv_cache.create_paged_kv_cache(
                heads,
                config.num_hidden_layers,
                [config.rope_theta ** (-i / half) for i in range(half)],
                **sizes,
            )
            self.builder.emit_func_output(self.builder.emit(cache._expr))
