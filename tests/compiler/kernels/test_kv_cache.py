"""The kernels as TVM's paged KV cache calls them, against attention over plain lists of keys."""

import copy

import numpy as np
import pytest

from harness.compiler.kernels.attention import Heads
from harness.compiler.kernels.isa import Isa

LAYERS = 2
CASES = [Heads(9, 3, 64, "float16"), Heads(4, 4, 32, "float32")]


class Cache:
    """A relax function that attends in every layer, and the runtime's calls around it."""

    def __init__(self, heads):
        import tvm
        from tvm import relax
        from tvm.relax.frontend import nn
        from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

        from harness.compiler.kernels.kv_cache import create_paged_kv_cache

        half = heads.size // 2
        self.heads, self.frequencies = heads, [1e4 ** (-i / half) for i in range(half)]
        self.tvm, frequencies = tvm, self.frequencies

        class Model(nn.Module):
            def attend(self, qkv: nn.Tensor, cache: PagedKVCache):
                outputs = [
                    cache.attention_with_fused_qkv(i, qkv, heads.query, heads.size**-0.5)
                    for i in range(LAYERS)
                ]
                return outputs[-1], cache

            def create(self, batch: int, total: int, chunk: int, page: int, window: int):
                return create_paged_kv_cache(
                    heads,
                    LAYERS,
                    frequencies,
                    max_batch=batch,
                    max_total_tokens=total,
                    prefill_chunk=chunk,
                    page_size=page,
                    support_sliding_window=window,
                )

        fused = heads.query + 2 * heads.key_value
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
        self.vm = relax.VirtualMachine(
            relax.build(module, target=tvm.target.Target(target)), tvm.cpu()
        )
        self.cache = self.vm["create"](*(self.shape(i) for i in (4, 1024, 256, 16, 0)))

    def shape(self, *sizes):
        return self.tvm.runtime.ShapeTuple(sizes)

    def state(self, name, *arguments):
        self.tvm.get_global_func(f"vm.builtin.kv_state_{name}")(self.cache, *arguments)

    def forward(self, sequence, qkv):
        self.state("begin_forward", self.shape(sequence), self.shape(len(qkv)))
        out, _ = self.vm["attend"](self.tvm.runtime.tensor(qkv[None]), self.cache)
        self.state("end_forward")
        return out.numpy()[0]


class Reference:
    def __init__(self, heads, frequencies):
        self.heads, self.frequencies = heads, np.array(frequencies)
        self.keys = self.values = np.zeros((0, heads.key_value, heads.size))

    def turn(self, x, positions):
        half = len(self.frequencies)
        angle = (positions[:, None] * self.frequencies)[:, None]
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, qkv):
        heads, qkv = self.heads, qkv.astype(np.float64)
        positions = np.arange(len(self.keys), len(self.keys) + len(qkv))
        ends = [heads.query, heads.query + heads.key_value]
        q, k, v = np.split(qkv, ends, 1)
        q, k = self.turn(q, positions), self.turn(k, positions)
        self.keys = np.concatenate([self.keys, k])
        self.values = np.concatenate([self.values, v])
        keys, values = (np.repeat(x, heads.group, 1) for x in (self.keys, self.values))
        score = np.einsum("qhd,khd->hqk", q, keys) * heads.size**-0.5
        score = np.where(np.arange(len(keys)) <= positions[:, None], score, -np.inf)
        weights = np.exp(score - score.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", weights, values)

    def cut(self, length):
        self.keys, self.values = self.keys[:length], self.values[:length]


@pytest.mark.parametrize("heads", CASES, ids=str)
def test_chunks_single_tokens_forks_and_pops_attend_to_the_right_keys(heads):
    cache, rng = Cache(heads), np.random.default_rng(0)
    references = {0: Reference(heads, cache.frequencies)}
    cache.state("add_sequence", 0)
    # Rounded to the cache's type: q and k after RoPE, v, and the output; a score is off by about
    # its square root of size times that, the largest output here is near 4. In float32 the angle
    # at position 600 is off by 600 * 2^-24.
    tolerance = 1e-2 if heads.dtype == "float16" else 3e-4

    def step(sequence, n):
        shape = (n, heads.query + 2 * heads.key_value, heads.size)
        qkv = rng.standard_normal(shape).astype(heads.dtype)
        found = cache.forward(sequence, qkv)
        assert np.abs(found - references[sequence].forward(qkv)).max() < tolerance

    for n in (37, 1, 1, 5, 20, 1, 200, 1, 16, 256, 1):
        step(0, n)
    cache.state("fork_sequence", 0, 1, -1)
    references[1] = copy.deepcopy(references[0])
    for n in (1, 3, 1):
        step(1, n)
        step(0, n)
    cache.state("popn", 1, 30)
    references[1].cut(len(references[1].keys) - 30)
    for n in (1, 3, 1):
        step(1, n)
    cache.state("fork_sequence", 0, 2, 50)  # in the middle of a page
    references[2] = copy.deepcopy(references[0])
    references[2].cut(50)
    for n in (1, 3, 40, 1):
        step(2, n)
    cache.state("remove_sequence", 1)
    step(0, 2)


def test_pages_of_another_size_are_refused():
    cache = Cache(CASES[1])
    cache.cache = cache.vm["create"](*(cache.shape(i) for i in (1, 64, 64, 8, 0)))
    cache.state("add_sequence", 0)
    with pytest.raises(Exception, match="16"):
        cache.forward(0, np.zeros((3, 12, 32), np.float32))
