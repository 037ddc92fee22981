"""Kernels written by hand, or their plain namesakes: which of the two a library is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable

from harness.compiler.kernels import (
    activations,
    attention,
    embedding,
    kv_pages,
    matmul,
    plain,
    plain_cache,
    rotary,
)
from harness.compiler.kernels.ir import PrimFunc
from harness.compiler.kernels.plain_cache import Items

Factory = Callable[..., PrimFunc]

_PLAIN: dict[Factory, Factory] = {
    embedding.embedding: plain.embedding,
    matmul.matmul: plain.matmul,
    matmul.gated_matmul: plain.gated_matmul,
    activations.rms_norm: plain.rms_norm,
    activations.norm_add: plain.norm_add,
}
_PLAIN_CACHE: dict[Factory, Factory] = {
    attention.decode: plain_cache.decode,
    attention.prefill_paged: plain_cache.prefill_paged,
    attention.prefill_ragged: plain_cache.prefill_ragged,
    kv_pages.append: plain_cache.append,
    kv_pages.copy_page: plain_cache.copy_page,
    kv_pages.merge_state: plain_cache.merge_state,
    kv_pages.split_rotary: plain_cache.split_rotary,
    rotary.rotary: plain_cache.rotary,
}


def choose(written: Factory, items: Items | None) -> Factory:
    """`written`, or the plain factory of the same function if `items` say how that one runs.

    What has no plain namesake is plain already.
    """
    if items is None:
        return written
    if written in _PLAIN_CACHE:
        return functools.partial(_PLAIN_CACHE[written], items)
    return _PLAIN.get(written, written)
