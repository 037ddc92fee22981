"""The paged KV cache of TVM's runtime, wired with the kernels here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.nn.llm import kv_cache as tvm_kv_cache

from harness.compiler.kernels import attention, kv_pages
from harness.compiler.kernels.choice import Factory, choose
from harness.compiler.kernels.heads import Heads
from harness.compiler.kernels.ir import Expr
from harness.compiler.kernels.plain_cache import Items


def create_paged_kv_cache(
    heads: Heads,
    layers: int,
    frequencies: Sequence[float] | None,
    *,
    max_batch: Expr,
    max_total_tokens: Expr,
    prefill_chunk: Expr,
    page_size: Expr,
    support_sliding_window: Expr,
    items: Items | None = None,
) -> Any:
    """Emit the creation of a cache; returns TVM's `PagedKVCache` for `frontend.nn`.

    To be called where a `relax.BlockBuilder` is current: in an exported method whose five `int`
    arguments are the last five here. Its `attention_with_fused_qkv(layer, qkv, num_qo_heads,
    sm_scale)` takes qkv [1, n, query + 2 * key_value, size] before RoPE and gives
    [1, n, query, size], both of `heads.dtype`, which is the pages' type: TVM's runtime demands
    one for all. Arithmetic inside is float32.

    `frequencies` as `kv_pages.split_rotary` has them; None where q and k come rotated
    (`rotary.rotary`). A layer's `sm_scale` is `heads.layer_scale`, which also says whether
    the layer is windowed. The pages hold `heads.PAGE` tokens; the runtime argument must say the
    same. The runtime's own sliding windows and token trees have no kernels: it refuses them by its
    own check. With `items` the kernels are the plain ones, run so. Raises ValueError for sizes that
    no kernel serves.
    """
    builder = relax.BlockBuilder.current()
    if builder is None:
        raise ValueError("a KV cache is created inside a function that is being built")

    def add(function: Any, name: str) -> Any:
        return builder.add_func(function, name)

    def kernel(written: Factory, name: str, *arguments: Any) -> Any:
        return add(choose(written, items)(heads, *arguments), name)

    def backend(written: Factory, name: str) -> Any:
        return relax.Tuple([tvm.ir.StringImm("tirx"), kernel(written, name)])

    h, d, dtype = heads.key_value, heads.size, heads.dtype
    none = relax.Tuple([])
    modes = tvm_kv_cache.RopeMode
    rope_mode = int(modes.NONE if frequencies is None else modes.NORMAL)
    window = 1024  # The runtime's, which is unused, but it wants it positive.
    arguments = [
        relax.ShapeExpr(
            [
                max_batch,
                max_total_tokens,
                prefill_chunk,
                page_size,
                support_sliding_window,
                window,
            ]
        ),
        relax.ShapeExpr([0, layers]),
        relax.prim_value(heads.query),
        relax.prim_value(h),
        relax.prim_value(d),
        relax.prim_value(d),
        relax.ShapeExpr([int(tvm_kv_cache.AttnKind.MHA)] * layers),
        relax.prim_value(False),
        relax.prim_value(rope_mode),
        relax.prim_value(1),  # RoPE's scale and base: the frequencies hold both.
        relax.prim_value(1),
        relax.prim_value(0),
        relax.op.zeros((), dtype),
        kernel(kv_pages.append, "kv_append"),
        relax.prim_value(0),  # No latent attention.
        backend(attention.prefill_ragged, "attention_prefill_ragged"),
        backend(attention.prefill_paged, "attention_prefill_paged"),
        backend(attention.decode, "attention_decode"),
        *[none] * 5,  # Sliding window: prefill, decode; token tree: paged, ragged; latent.
        relax.Tuple([kernel(kv_pages.merge_state, "attention_merge_state")]),
        kernel(kv_pages.split_rotary, "kv_split_rotary", frequencies),
        kernel(kv_pages.copy_page, "kv_copy_page"),
        add(tvm_kv_cache._kv_cache_debug_get_kv(layers, h, d, dtype), "kv_debug_get"),
        add(_compact_copy(heads, items), "kv_compact_copy"),
    ]
    return tvm_kv_cache.PagedKVCache(
        _expr=relax.call_pure_packed(
            "vm.builtin.paged_attention_kv_cache_create", *arguments, ty_args=relax.AnyType()
        ),
        _name="paged_kv_cache",
    )


def _compact_copy(heads: Heads, items: Items | None) -> Any:
    """TVM's own: it is called for token trees only, which have no other kernels here."""
    sizes = (heads.key_value, heads.size, heads.dtype)
    if items is Items.GPU:
        return tvm_kv_cache._compact_kv_copy(*sizes, tvm.target.Target.current())
    return tvm_kv_cache._compact_kv_copy_cpu(*sizes)
