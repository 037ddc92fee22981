"""A model's functions in Relax, over the packed kernels and the paged KV cache.

The functions have MLC's names, with the instruction set's suffix, and take one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import IRModule, relax, tirx

from harness.compiler.architectures import decoder
from harness.compiler.architectures.blocks import (
    Arguments,
    Blocks,
    Kernels,
    Library,
    Parameters,
)
from harness.compiler.kernels import kv_cache, rotary
from harness.compiler.kernels.isa import Isa
from harness.compiler.kernels.layout import WeightFormat
from harness.compiler.kernels.matmul import ActivationType
from harness.compiler.model_config import DecoderConfig
from harness.compiler.passes.levels import CPU, Level
from harness.errors import UsageError


class Graph:
    """Builds the functions of one model for one instruction set, `builder`'s other functions
    beside them.

    `formats` gives the weight format of each matrix by its name, `activations` what quantized ones
    are multiplied with, `tile` the tokens that share unpacked weights; plain kernels take float32
    whatever it says, and have no tiles. Raises `UsageError` if the attention kernels do not serve
    the sizes of the heads.
    """

    def __init__(
        self,
        config: DecoderConfig,
        formats: Mapping[str, WeightFormat],
        kv_dtype: str,
        isa: Isa,
        activations: ActivationType = "int8",
        level: Level = CPU[-1],
        builder: relax.BlockBuilder | None = None,
        tile: int | None = None,
    ) -> None:
        self.config = config
        self.decoder = decoder(config)
        self.builder = relax.BlockBuilder() if builder is None else builder
        self._suffix = isa.suffix
        self.parameters = Parameters(self.decoder.parameters(), formats)
        kernels = Kernels(self.builder, isa, level.items)
        self.library = Library(
            config,
            kv_dtype,
            activations if level.items is None else "float32",
            kernels,
            self.parameters,
            level.fuses_norms,
            tile if level.items is None else None,
        )
        for rope in {config.layer_rope(layer) for layer in range(config.num_hidden_layers)}:
            try:
                rotary.check(self.library.heads, rope.frequencies(config.head_dim))
            except ValueError as problem:
                raise UsageError(
                    "the attention kernels do not serve this model",
                    cause=str(problem),
                    remedy="harness models list",
                ) from problem

    def module(self, prefill_chunk: int) -> IRModule:
        """All functions of the builder once these are added to it."""
        self.add(prefill_chunk)
        return self.builder.finalize()

    def add(self, prefill_chunk: int) -> None:
        """Add the functions to the builder; at most `prefill_chunk` tokens go through one call."""
        bounds = {"tir_var_upper_bound": {"n": prefill_chunk}}
        self._embed(bounds)
        self._forward("prefill", bounds, tokens=None, last_only=True)
        self._forward("decode", {}, tokens=1, last_only=False)
        self._forward("batch_verify", bounds, tokens=None, last_only=False)
        self._create_kv_cache()

    def _embed(self, attrs: dict[str, Any]) -> None:
        n = tirx.Var("n", "int64")
        ids = relax.Var("tokens", relax.TensorType((n,), "int32"))
        params = self.parameters.variable()
        with self.builder.function(f"embed{self._suffix}", [ids, params], attrs=attrs):
            with self.builder.dataflow():
                rows = self.decoder.embed(Blocks(self.library, Arguments(params, ids=ids), None, n))
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
        with self.builder.function(name + self._suffix, [embeds, kv, params], attrs=attrs):
            with self.builder.dataflow():
                positions = self._positions(kv, n) if self.decoder.rotates else None
                arguments = Arguments(params, kv=kv, positions=positions)
                blocks = Blocks(self.library, arguments, tokens, n)
                x = blocks.reshape(embeds, (n, config.hidden_size))
                for layer in range(config.num_hidden_layers):
                    x = self.decoder.layer(blocks, layer, x)
                if last_only:
                    x = blocks.last_row(x, config.hidden_size)
                    blocks = blocks.single()
                logits = self.decoder.logits(blocks, self.decoder.final(blocks, x))
                logits = blocks.reshape(logits, (1, blocks.n, config.vocab_size))
                out = self.builder.emit_output(relax.Tuple([logits, kv]))
            self.builder.emit_func_output(out)

    def _positions(self, kv: relax.Var, n: Any) -> relax.Var:
        """The positions of the new tokens, int32 [n]."""
        return self.builder.emit(
            relax.call_pure_packed(
                "vm.builtin.attention_kv_cache_get_query_positions",
                kv,
                ty_args=relax.TensorType((n,), "int32"),
            )
        )

    def _create_kv_cache(self) -> None:
        """A function of five shapes of one number each, named and ordered as MLC's."""
        config = self.config
        frequencies = None if self.decoder.rotates else config.rope.frequencies(config.head_dim)
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
        with self.builder.function(f"create_tir_paged_kv_cache{self._suffix}", shapes):
            cache = kv_cache.create_paged_kv_cache(
                self.library.heads,
                config.num_hidden_layers,
                frequencies,
                **sizes,
                items=self.library.kernels.items,
            )
            self.builder.emit_func_output(self.builder.emit(cache._expr))
