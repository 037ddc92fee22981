"""The paged KV cache's kernels one by one, against float64."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compiler.kernels import attention, kv_pages
from harness.compiler.kernels.heads import Heads, layer_scale

U = 2.0**-24
U16 = 2.0**-11
SIZES = {
    "grouped": Heads(9, 3, 64, "float16"),
    "grouped_f32": Heads(9, 3, 64, "float32"),
    "single": Heads(4, 4, 24, "float32"),
    "pair": Heads(4, 2, 80, "float16"),
    "wide": Heads(8, 1, 256, "float16"),
    "windowed": Heads(7, 1, 32, "float16", window=20),
    "far": Heads(5, 1, 32, "float16", window=700),
    "capped": Heads(6, 2, 96, "float32", window=40, softcap=0.75),
}
WINDOWED = [name for name, heads in SIZES.items() if heads.window]
PLAIN = [name for name in SIZES if name not in WINDOWED]
FREQUENCIES = [10000.0 ** (-i / 8) for i in range(8)]
sizes = pytest.mark.parametrize("size", SIZES)
plain = pytest.mark.parametrize("size", PLAIN)


@pytest.fixture(scope="module")
def kernels(isa, build):
    functions = {}
    for name, heads in SIZES.items():
        functions |= {
            f"{name}_decode": attention.decode(heads),
            f"{name}_paged": attention.prefill_paged(heads),
            f"{name}_ragged": attention.prefill_ragged(heads),
        }
    for name in PLAIN:
        heads = SIZES[name]
        functions |= {
            f"{name}_rope": kv_pages.split_rotary(heads, FREQUENCIES),
            f"{name}_append": kv_pages.append(heads),
            f"{name}_merge": kv_pages.merge_state(heads),
            f"{name}_copy": kv_pages.copy_page(heads),
        }
    return build(functions)


class Attention:
    """Attention in float64: the output, lse in base 2, and how far float32 may be from them."""

    def __init__(self, heads, q, k, v, limits, skips=0):
        q, k, v = (x.astype(np.float64) for x in (q, k, v))
        k, v = (np.repeat(x, heads.group, 1) for x in (k, v))
        scale = heads.size**-0.5 / np.log(2)
        score = np.einsum("qhd,khd->qhk", q, k) * scale
        size = np.einsum("qhd,khd->qhk", np.abs(q), np.abs(k)) * scale
        cap = heads.softcap / np.log(2) if heads.softcap else 0
        if cap:
            score = cap * np.tanh(score / cap)
        index = np.arange(len(k))
        seen = index < np.asarray(limits)[:, None, None]
        seen &= index >= np.broadcast_to(skips, len(q))[:, None, None]
        self.blind = ~seen.any(-1)[:, 0]
        seen |= self.blind[:, None, None]
        score = np.where(seen, score, -np.inf)
        highest = score.max(-1, keepdims=True)
        weights = np.exp2(score - highest)
        total = weights.sum(-1, keepdims=True)
        self.out = np.einsum("qhk,khd->qhd", weights / total, v)
        self.lse = (highest + np.log2(total))[..., 0]
        # A score is a sum of `size` products, scaled; a weight is 2^score, with its own 8 U; then
        # sums over the keys, rescaled once a page. Both numerator and denominator are off by that.
        keys, spread = len(k), np.abs(v).max()
        shift = np.where(seen, (heads.size + 4) * U * size, 0).max((0, 2)).max()
        # A soft cap flattens that, and its own tanh is off by a few units.
        shift += 8 * U * cap
        relative = np.log(2) * shift + (8 + 2 * keys) * U
        self.error = 2.1 * relative * spread
        self.lse_error = shift + 2 * (8 + 2 * keys) * U + 8 * U * (np.abs(self.lse).max() + 1)
        if heads.dtype == "float16":
            self.error = self.error + 1.001 * U16 * np.abs(self.out) + 2.0**-24

    def check(self, out, lse):
        sees = ~self.blind
        assert (np.abs(out - self.out) <= self.error)[sees].all()
        assert (np.abs(lse - self.lse) <= self.lse_error)[sees].all()
        # The runtime merges such a row with others by its weight, which has to vanish.
        assert np.isfinite(out).all() and (lse[self.blind] < -4e4).all()


def paged(heads, sequences, rng):
    """Pages in random order for keys and values of several sequences; unused slots are NaN."""
    counts = [-(-len(k) // 16) for k, _ in sequences]
    order = rng.permutation(sum(counts) + 3).astype(np.int32)[: sum(counts)]
    shape = (sum(counts) + 3, 2, heads.key_value, 16, heads.size)
    pages = np.full(shape, np.nan, heads.dtype)
    used = iter(order)
    for both in sequences:
        for at in range(0, len(both[0]), 16):
            page = next(used)
            for which, data in enumerate(both):
                part = data[at : at + 16]
                pages[page, which, :, : len(part)] = part.transpose(1, 0, 2)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    last = [(len(k) - 1) % 16 + 1 if len(k) else 0 for k, _ in sequences]
    return pages, indptr, order, last


def random_tensor(rng, heads, n, count):
    return rng.standard_normal((n, count, heads.size)).astype(heads.dtype)


def key_values(rng, heads, n):
    return random_tensor(rng, heads, n, heads.key_value), random_tensor(
        rng, heads, n, heads.key_value
    )


def empty(heads, n):
    out = np.full((n, heads.query, heads.size), np.nan, heads.dtype)
    return out, np.full((n, heads.query), np.nan, np.float32)


def scalars(heads, windowed=False):
    return 0, 1.0, 1.0, layer_scale(heads.size**-0.5, windowed=windowed)


def passed(heads, distances):
    """How many keys a windowed layer no longer sees, where key 0 is so far before the query."""
    return np.maximum(np.asarray(distances) - heads.window + 1, 0)


@sizes
@pytest.mark.parametrize("lengths", [[1], [16], [17], [300], [3, 40], [700, 5], [2100]])
def test_decode_attends_to_every_key_in_the_pages(kernels, size, lengths):
    heads, rng, view = SIZES[size], np.random.default_rng(len(lengths)), kernels.view
    sequences = [key_values(rng, heads, n) for n in lengths]
    pages, indptr, order, last = paged(heads, sequences, rng)
    q = random_tensor(rng, heads, len(lengths), heads.query)
    out, lse = empty(heads, len(lengths))
    zeros = view(np.zeros(len(lengths)))
    index = (view(indptr), view(order), view(last), zeros, zeros)
    kernels(f"{size}_decode", q, pages, *index, out, lse, *scalars(heads))
    for i, (k, v) in enumerate(sequences):
        one = slice(i, i + 1)
        Attention(heads, q[one], k, v, [len(k)]).check(out[one], lse[one])


@pytest.mark.parametrize("length", [600, 3000])
def test_parts_of_the_keys_give_the_same_bits_to_any_number_of_threads(kernels, length):
    heads, rng, view = SIZES["wide"], np.random.default_rng(length), kernels.view
    pages, indptr, order, last = paged(heads, [key_values(rng, heads, length)], rng)
    q, zeros = random_tensor(rng, heads, 1, heads.query), view(np.zeros(1))
    index = (view(indptr), view(order), view(last), zeros, zeros)
    found = []
    for threads in (1, 2, 5):
        kernels.use_threads(threads)
        out, lse = empty(heads, 1)
        kernels("wide_decode", q, pages, *index, out, lse, *scalars(heads))
        found.append((out.tobytes(), lse.tobytes()))
    assert len(set(found)) == 1


@sizes
@pytest.mark.parametrize("lengths", [[1], [2], [7, 1], [65]])
def test_new_tokens_attend_to_themselves_and_those_before(kernels, size, lengths):
    heads, rng, view = SIZES[size], np.random.default_rng(sum(lengths)), kernels.view
    n = sum(lengths)
    q = random_tensor(rng, heads, n, heads.query)
    k, v = key_values(rng, heads, n)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    out, lse = empty(heads, n)
    rest = (view(np.zeros(n)), view(np.zeros(len(lengths))))
    index = view(indptr)
    kernels(
        *(f"{size}_ragged", q, index, k, v, view(indptr), *rest, out, lse),
        *(1, *scalars(heads)),
    )
    for begin, end in itertools.pairwise(indptr):
        part = slice(begin, end)
        limits = np.arange(1, end - begin + 1)
        Attention(heads, q[part], k[part], v[part], limits).check(out[part], lse[part])


@sizes
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (5, 33), (21, 150)])
def test_new_tokens_attend_to_the_pages(kernels, size, causal, tokens, keys):
    heads, rng, view = SIZES[size], np.random.default_rng(keys), kernels.view
    history = key_values(rng, heads, keys)
    pages, indptr, order, last = paged(heads, [history], rng)
    q = random_tensor(rng, heads, tokens, heads.query)
    out, lse = empty(heads, tokens)
    index = (view([0, tokens]), pages, view(indptr), view(order), view(last))
    rest = (view([0]), view(np.zeros(tokens)))
    kernels(f"{size}_paged", q, *index, *rest, out, lse, causal, *scalars(heads))
    limits = np.arange(tokens) + keys - tokens + 1 if causal else np.full(tokens, keys)
    Attention(heads, q, *history, limits).check(out, lse)


@pytest.mark.parametrize("size", WINDOWED)
@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 300) | st.sampled_from([1000, 2500]), min_size=1, max_size=3),
    start=st.integers(0, 1000),
    beyond=st.integers(0, 60),
)
def test_a_decoding_window_holds_the_latest_keys(kernels, size, lengths, start, beyond):
    """Also over a shared block of pages, behind which a sequence has `beyond` keys of its own."""
    heads, rng, view = SIZES[size], np.random.default_rng(start), kernels.view
    sequences = [key_values(rng, heads, n) for n in lengths]
    pages, indptr, order, last = paged(heads, sequences, rng)
    q = random_tensor(rng, heads, len(lengths), heads.query)
    out, lse = empty(heads, len(lengths))
    distances = np.array(lengths) - 1 + beyond
    positions = (view(np.full(len(lengths), start)), view(start + distances))
    index = (view(indptr), view(order), view(last), *positions)
    kernels(f"{size}_decode", q, pages, *index, out, lse, *scalars(heads, windowed=True))
    for i, (k, v) in enumerate(sequences):
        one, skip = slice(i, i + 1), passed(heads, distances[i])
        Attention(heads, q[one], k, v, [len(k)], skip).check(out[one], lse[one])


@pytest.mark.parametrize("size", WINDOWED)
@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=2),
    starts=st.tuples(st.integers(0, 900), st.integers(0, 900)),
)
def test_a_window_moves_with_the_tokens_of_a_chunk(kernels, size, lengths, starts):
    heads, rng, view = SIZES[size], np.random.default_rng(sum(lengths)), kernels.view
    n = sum(lengths)
    q = random_tensor(rng, heads, n, heads.query)
    k, v = key_values(rng, heads, n)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    out, lse = empty(heads, n)
    starts = starts[: len(lengths)]
    positions = [start + np.arange(m) for start, m in zip(starts, lengths, strict=True)]
    rest = (view(np.concatenate(positions)), view(starts))
    kernels(
        *(f"{size}_ragged", q, view(indptr), k, v, view(indptr), *rest, out, lse),
        *(1, *scalars(heads, windowed=True)),
    )
    for begin, end in itertools.pairwise(indptr):
        part, index = slice(begin, end), np.arange(end - begin)
        one = Attention(heads, q[part], k[part], v[part], index + 1, passed(heads, index))
        one.check(out[part], lse[part])


@pytest.mark.parametrize("size", WINDOWED)
@settings(max_examples=15)
@given(
    keys=st.integers(1, 200),
    start=st.integers(0, 1000),
    beyond=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=3),
)
def test_a_window_reaches_back_into_the_pages(kernels, size, keys, start, beyond):
    """Pages that sequences share: each has keys of its own behind them, then its new tokens."""
    heads, rng, view = SIZES[size], np.random.default_rng(keys), kernels.view
    history = key_values(rng, heads, keys)
    pages, indptr, order, last = paged(heads, [history], rng)
    distances = np.concatenate([keys + own + np.arange(n) for own, n in beyond])
    tokens = len(distances)
    q = random_tensor(rng, heads, tokens, heads.query)
    out, lse = empty(heads, tokens)
    index = (view([0, tokens]), pages, view(indptr), view(order), view(last))
    rest = (view([start]), view(start + distances))
    kernels(f"{size}_paged", q, *index, *rest, out, lse, 0, *scalars(heads, windowed=True))
    limits = np.full(tokens, keys)
    Attention(heads, q, *history, limits, passed(heads, distances)).check(out, lse)


@pytest.mark.parametrize("size", WINDOWED)
@pytest.mark.parametrize(("tokens", "keys"), [(1, 90), (70, 90), (33, 33)])
def test_a_window_over_pages_that_hold_the_new_tokens(kernels, size, tokens, keys):
    heads, rng, view = SIZES[size], np.random.default_rng(tokens), kernels.view
    history = key_values(rng, heads, keys)
    pages, indptr, order, last = paged(heads, [history], rng)
    q = random_tensor(rng, heads, tokens, heads.query)
    out, lse = empty(heads, tokens)
    index = (view([0, tokens]), pages, view(indptr), view(order), view(last))
    distances = keys - tokens + np.arange(tokens)
    rest = (view([7]), view(7 + distances))
    kernels(f"{size}_paged", q, *index, *rest, out, lse, 1, *scalars(heads, windowed=True))
    Attention(heads, q, *history, distances + 1, passed(heads, distances)).check(out, lse)


def test_a_sequence_without_pages_weighs_nothing(kernels):
    heads, view = SIZES["grouped"], kernels.view
    pages = np.full((1, 2, heads.key_value, 16, heads.size), np.nan, np.float16)
    out, lse = empty(heads, 1)
    none = (view([0, 0]), view([0]), view([0]), view([0]), view([0]))
    q = np.ones((1, heads.query, heads.size), np.float16)
    kernels("grouped_decode", q, pages, *none, out, lse, *scalars(heads))
    assert not out.any() and (lse < -4e4).all()


def test_scores_far_apart_neither_overflow_nor_vanish(kernels):
    heads, rng, view = SIZES["grouped_f32"], np.random.default_rng(0), kernels.view
    k, v = key_values(rng, heads, 40)
    k *= 100
    k[3] = 0
    pages, indptr, order, last = paged(heads, [(k, v)], rng)
    q = random_tensor(rng, heads, 1, heads.query) * 10
    out, lse = empty(heads, 1)
    zeros = view([0])
    index = (view(indptr), view(order), view(last), zeros, zeros)
    kernels("grouped_f32_decode", q, pages, *index, out, lse, *scalars(heads))
    Attention(heads, q, k, v, [40]).check(out, lse)


@plain
@pytest.mark.parametrize("n", [1, 11])
def test_rope_turns_queries_and_keys_and_copies_the_rest(kernels, size, n):
    heads, rng = SIZES[size], np.random.default_rng(n)
    qkv = random_tensor(rng, heads, n, heads.query + 2 * heads.key_value)
    positions = rng.integers(0, 131072, n)
    for apply_rope in (1, 0):
        q = np.full((n, heads.query, heads.size), np.nan, heads.dtype)
        k = np.full((n, heads.key_value, heads.size), np.nan, heads.dtype)
        v = k.copy()
        kernels(f"{size}_rope", qkv, kernels.view(positions), q, k, v, apply_rope)
        angle = (positions * apply_rope)[:, None, None] * np.array(FREQUENCIES)
        half, wide = len(FREQUENCIES), qkv.astype(np.float64)
        a, b, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)
        # Sine and cosine are off by 4 U whatever the angle; then products and sum.
        error = np.full_like(turned, (4 + 5) * U * (np.abs(wide).max() * 2))
        if heads.dtype == "float16":
            error = error + U16 * np.abs(turned) + 2.0**-24
        expected = np.where(apply_rope, turned, wide)
        both = np.concatenate([q, k], 1)
        assert (np.abs(both - expected[:, : both.shape[1]]) <= error[:, : both.shape[1]]).all()
        assert (v == qkv[:, both.shape[1] :]).all()


@plain
@pytest.mark.parametrize("n", [1, 9])
def test_append_fills_the_slots_and_leaves_out_minus_one(kernels, size, n):
    heads, rng = SIZES[size], np.random.default_rng(n)
    pages = random_tensor(rng, heads, 3 * 2 * heads.key_value, 16)
    pages = pages.reshape(3, 2, heads.key_value, 16, heads.size)
    expected = pages.copy()
    k, v = key_values(rng, heads, n)
    slots = rng.permutation(48)[:n]
    slots[-1] = slots[-1] if n == 1 else -1
    kernels(f"{size}_append", pages, k, v, kernels.view(slots))
    for i, slot in enumerate(slots):
        if slot >= 0:
            expected[slot // 16, 0, :, slot % 16] = k[i]
            expected[slot // 16, 1, :, slot % 16] = v[i]
    assert (pages == expected).all()


@plain
def test_merging_two_halves_gives_the_whole(kernels, size):
    heads, rng = SIZES[size], np.random.default_rng(0)
    n = 9
    a, b = (random_tensor(rng, heads, n, heads.query) for _ in range(2))
    lse, other = (rng.uniform(-30, 30, (n, heads.query)).astype(np.float32) for _ in range(2))
    other[0] = -5e4 - 126  # a half without keys
    x, y = lse.astype(np.float64), other.astype(np.float64)
    highest = np.maximum(x, y)
    weights = np.exp2(np.stack([x, y]) - highest)
    total = weights.sum(0)
    expected = (a * weights[0][..., None] + b * weights[1][..., None]) / total[..., None]
    kernels(f"{size}_merge", a, lse, b, other)
    error = 30 * U * np.abs(expected).max() + (1.001 * U16 * np.abs(expected) + 2.0**-24) * (
        heads.dtype == "float16"
    )
    assert (np.abs(a - expected) <= error).all()
    assert (np.abs(lse - (highest + np.log2(total))) <= 40 * U * 30).all()


@plain
def test_a_page_is_copied_as_far_as_it_is_filled(kernels, size):
    heads, rng = SIZES[size], np.random.default_rng(1)
    pages = random_tensor(rng, heads, 3 * 2 * heads.key_value, 16)
    pages = pages.reshape(3, 2, heads.key_value, 16, heads.size)
    expected = pages.copy()
    expected[2, :, :, :5] = expected[0, :, :, :5]
    kernels(f"{size}_copy", pages, 0, 2, 5)
    assert (pages == expected).all()


def test_sizes_that_no_kernel_serves_are_refused():
    for heads, what in (
        (Heads(9, 2, 64, "float16"), "do not share"),
        (Heads(8, 2, 60, "float16"), "multiple of 8"),
        (Heads(8, 2, 64, "int8"), "not supported"),
        (Heads(8, 2, 64, "float16", window=0), "window of 0"),
        (Heads(8, 2, 64, "float16", softcap=0.0), "soft cap of 0"),
    ):
        with pytest.raises(ValueError, match=what):
            attention.decode(heads)
    with pytest.raises(ValueError, match="rotated pairs"):
        kv_pages.split_rotary(SIZES["single"], [1.0] * 16)
