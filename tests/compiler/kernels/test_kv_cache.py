"""The kernels as TVM's paged KV cache calls them, against attention over plain lists of keys."""

import copy
import functools
from typing import NamedTuple

import numpy as np
import pytest

from harness.compiler.kernels import rotary
from harness.compiler.kernels.heads import Heads, layer_scale
from harness.compiler.kernels.isa import Isa

EPS = 1e-6


def rates(heads, base):
    half = heads.size // 2
    return [base ** (-i / half) for i in range(half)]


def norm_weights(heads):
    """Of the q and the k heads."""
    return np.linspace(0.5, 1.5, 2 * heads.size).reshape(2, -1).astype(np.float32)


class Case(NamedTuple):
    """A model's attention: its layers, and whether the graph rotates, each layer its own way."""

    heads: Heads
    windowed: tuple[bool, ...] = (False, False)
    in_graph: bool = False

    def frequencies(self, layer):
        return rates(self.heads, 1e6 if self.in_graph and not self.windowed[layer] else 1e4)

    def __str__(self):
        return "-".join(str(x) for x in (*self.heads, *(("graph",) if self.in_graph else ())))


CASES = [
    Case(Heads(9, 3, 64, "float16")),
    Case(Heads(4, 4, 32, "float32")),
    # A window shorter than most chunks, and one longer than them all but shorter than the context.
    Case(Heads(7, 1, 32, "float16", window=24, softcap=8.0), (True, False)),
    Case(Heads(4, 2, 32, "float32", window=300), (False, True, True), in_graph=True),
]


@functools.cache
def compiled(case):
    """A relax function that attends in every layer, and one that creates the cache."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend import nn
    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

    from harness.compiler.kernels.kv_cache import create_paged_kv_cache

    heads, layers = case.heads, len(case.windowed)
    fused = heads.query + 2 * heads.key_value

    def turned(layer: int, qkv: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        n = qkv.shape[1]
        builder = relax.BlockBuilder.current()
        kernel = rotary.rotary(
            *(heads, case.frequencies(layer)),
            **{"q_norm": True, "k_norm": True, "eps": EPS, "tokens": None},
        )
        inputs = [nn.op.reshape(qkv, (n, fused, heads.size))._expr]
        inputs += [
            cache.get_query_positions(n)._expr,
            *(relax.const(w) for w in norm_weights(heads)),
        ]
        result = relax.TensorType((n, fused, heads.size), heads.dtype)
        call = relax.call_tir(builder.add_func(kernel, "rotary"), inputs, result)
        return nn.op.reshape(nn.Tensor(_expr=builder.emit(call)), (1, n, fused, heads.size))

    class Model(nn.Module):
        def attend(self, qkv: nn.Tensor, cache: PagedKVCache):
            outputs = []
            for layer, windowed in enumerate(case.windowed):
                scale = layer_scale(heads.size**-0.5, windowed=windowed)
                x = turned(layer, qkv, cache) if case.in_graph else qkv
                outputs.append(cache.attention_with_fused_qkv(layer, x, heads.query, scale))
            return nn.op.concat(outputs, 0), cache

        def create(self, batch: int, total: int, chunk: int, page: int, window: int):
            return create_paged_kv_cache(
                heads,
                layers,
                None if case.in_graph else case.frequencies(0),
                max_batch=batch,
                max_total_tokens=total,
                prefill_chunk=chunk,
                page_size=page,
                support_sliding_window=window,
            )

    bare = {"param_mode": "none", "effect_mode": "none"}
    sizes = ("batch", "total", "chunk", "page", "window")
    methods = {
        "attend": {
            "qkv": nn.spec.Tensor([1, "n", fused, heads.size], heads.dtype),
            "cache": nn.spec.Object(object_type=PagedKVCache),
            "$": bare,
        },
        "create": {**dict.fromkeys(sizes, int), "$": bare},
    }
    model = Model()
    module, _ = model.export_tvm(spec=nn.spec.ModuleSpec.from_raw(methods, model))
    target = {**Isa.X86_64_V3.target(), "mtriple": "x86_64-linux-gnu"}
    return relax.VirtualMachine(relax.build(module, target=tvm.target.Target(target)), tvm.cpu())


class Cache:
    """A case's functions, and the runtime's calls around them."""

    def __init__(self, case):
        import tvm

        self.tvm, self.case, self.vm = tvm, case, compiled(case)
        self.cache = self.vm["create"](*(self.shape(i) for i in (4, 1536, 256, 16, 0)))

    def shape(self, *sizes):
        return self.tvm.runtime.ShapeTuple(sizes)

    def state(self, name, *arguments):
        self.tvm.get_global_func(f"vm.builtin.kv_state_{name}")(self.cache, *arguments)

    def forward(self, sequences, counts, qkv):
        """Outputs [layer, token, head, element] of new tokens, `counts` of them a sequence."""
        self.state("begin_forward", self.shape(*sequences), self.shape(*counts))
        out, _ = self.vm["attend"](self.tvm.runtime.tensor(qkv[None]), self.cache)
        self.state("end_forward")
        return out.numpy()


class Reference:
    """One sequence's layers in float64, over all that came before."""

    def __init__(self, case):
        self.case, heads = case, case.heads
        self.tokens = np.zeros((0, heads.query + 2 * heads.key_value, heads.size))

    def turn(self, x, layer, weight):
        if self.case.in_graph:
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight
        angle = np.arange(len(x))[:, None] * np.array(self.case.frequencies(layer))
        a, b = np.split(x, 2, -1)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, qkv):
        self.tokens = np.concatenate([self.tokens, qkv.astype(np.float64)])
        layers = range(len(self.case.windowed))
        return np.stack([self.layer(i, len(qkv)) for i in layers])

    def layer(self, layer, new):
        heads = self.case.heads
        q, k, v = np.split(self.tokens, [heads.query, heads.query + heads.key_value], 1)
        q, k = (self.turn(x, layer, w) for x, w in zip((q, k), norm_weights(heads), strict=True))
        k, v = (np.repeat(x, heads.group, 1) for x in (k, v))
        score = np.einsum("qhd,khd->hqk", q[-new:], k, optimize=True) * heads.size**-0.5
        if heads.softcap:
            score = heads.softcap * np.tanh(score / heads.softcap)
        positions = np.arange(len(q))
        distance = positions[-new:, None] - positions
        seen = (distance >= 0) & (distance < (heads.window if self.case.windowed[layer] else 1e9))
        weights = np.exp(np.where(seen, score, -np.inf))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", weights, v, optimize=True)

    def cut(self, length):
        self.tokens = self.tokens[:length]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunks_single_tokens_forks_and_pops_attend_to_the_right_keys(case):
    cache, rng, heads = Cache(case), np.random.default_rng(0), case.heads
    references = {0: Reference(case)}
    cache.state("add_sequence", 0)
    # Rounded to the cache's type: q and k after RoPE, v, and the output; a score is off by about
    # its square root of size times that, the largest output here is near 4. In float32 only sums
    # round: of `size` products, and over the keys.
    tolerance = 1e-2 if heads.dtype == "float16" else 3e-5

    def step(counts):
        n = sum(counts.values())
        shape = (n, heads.query + 2 * heads.key_value, heads.size)
        qkv = rng.standard_normal(shape).astype(heads.dtype)
        found = cache.forward(counts, counts.values(), qkv)
        ends = np.cumsum([*counts.values()])
        parts = np.split(qkv, ends[:-1])
        right = [references[i].forward(part) for i, part in zip(counts, parts, strict=True)]
        assert np.abs(found - np.concatenate(right, 1)).max() < tolerance

    for n in (37, 1, 1, 5, 20, 1, 200, 1, 16, 256, 1):
        step({0: n})
    cache.state("fork_sequence", 0, 1, -1)
    references[1] = copy.deepcopy(references[0])
    for n in (1, 3, 1):
        step({1: n})
        step({0: n})
    for counts in ({0: 1, 1: 1}, {0: 2, 1: 30}, {1: 1, 0: 1}):  # over pages that both share
        step(counts)
    cache.state("popn", 1, 60)
    references[1].cut(len(references[1].tokens) - 60)
    for n in (1, 3, 1):
        step({1: n})
    cache.state("fork_sequence", 0, 2, 50)  # in the middle of a page
    references[2] = copy.deepcopy(references[0])
    references[2].cut(50)
    for counts in ({2: 1}, {2: 3}, {2: 40}, {0: 1, 2: 1, 1: 1}, {1: 5, 2: 60, 0: 7}):
        step(counts)
    cache.state("remove_sequence", 1)
    step({0: 2})


def test_pages_of_another_size_are_refused():
    cache = Cache(CASES[1])
    cache.cache = cache.vm["create"](*(cache.shape(i) for i in (1, 64, 64, 8, 0)))
    cache.state("add_sequence", 0)
    with pytest.raises(Exception, match="16"):
        cache.forward([0], [3], np.zeros((3, 12, 32), np.float32))
