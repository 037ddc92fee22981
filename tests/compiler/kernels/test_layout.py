"""The packed layout against a reader written from its description, word by word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat


def random_plain(fmt, rows, k, seed):
    rng = np.random.default_rng(seed)
    plain = {}
    for tensor in layout.plain_tensors(fmt, rows, k):
        size = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
        plain[tensor.part] = (
            np.frombuffer(rng.bytes(size), dtype=tensor.dtype).reshape(tensor.shape).copy()
        )
    return plain


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


formats = st.sampled_from(list(WeightFormat))


@settings(max_examples=60, deadline=None)
@given(formats, st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_packing_and_unpacking_give_back_every_bit(fmt, rows, groups, seed):
    plain = random_plain(fmt, rows, groups * 32, seed)
    packed = layout.pack(fmt, plain)
    for tensor in layout.packed_tensors(fmt, rows, groups * 32):
        assert packed[tensor.part].shape == tensor.shape
        assert packed[tensor.part].dtype == np.dtype(tensor.dtype)
    back = layout.unpack(fmt, packed, rows)
    assert back.keys() == plain.keys()
    assert all(same_bits(back[part], plain[part]) for part in plain)


def packed_value(fmt, packed, row, column):
    """One weight, read as the package's docstring says."""
    block, lane = divmod(row, 8)
    if fmt is WeightFormat.F32:
        return packed["weight"][block, column, lane]
    group, inside = divmod(column, 32)
    scale = np.float32(packed["q_scale"][block, group, lane])
    if fmt is WeightFormat.Q8_0:
        chunk, byte = divmod(inside, 4)
        word = packed["q_weight"][block, group, 8 * chunk + lane]
        return np.float32(word.tobytes()[byte] ^ 0x80) * scale - np.float32(128) * scale
    chunk, j = divmod(inside, 8)
    byte = packed["q_weight"][block, group, 8 * chunk + lane].tobytes()[j % 4]
    nibble = byte >> 4 if j >= 4 else byte & 15
    if fmt is WeightFormat.Q4_1:
        return np.float32(nibble) * scale + np.float32(packed["q_min"][block, group, lane])
    return np.float32(nibble - 7) * scale


@pytest.mark.parametrize("fmt", list(WeightFormat))
def test_a_packed_weight_lies_where_the_description_says(fmt):
    rows, k = 13, 96
    plain = random_plain(fmt, rows, k, 7)
    for part in plain:
        if part != "q_weight":
            plain[part] = (
                np.random.default_rng(1).random(plain[part].shape).astype(plain[part].dtype)
            )
    packed = layout.pack(fmt, plain)
    values = layout.dequantize(fmt, plain)
    for row in range(rows):
        for column in range(k):
            assert packed_value(fmt, packed, row, column) == pytest.approx(
                values[row, column], rel=1e-5, abs=1e-5
            )


def test_missing_rows_of_the_last_block_are_zeros():
    packed = layout.pack(WeightFormat.Q8_0, random_plain(WeightFormat.Q8_0, 9, 32, 3))
    lanes = packed["q_weight"].reshape(2, 1, 8, 8)
    assert not lanes[1, :, :, 1:].any() and not packed["q_scale"][1, :, 1:].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32))
def test_words_hold_eight_nibbles_lowest_first(rows, words, seed):
    q = np.random.default_rng(seed).integers(0, 16, (rows, 8 * words), dtype=np.uint8)
    packed = layout.nibbles_to_words(q)
    assert (layout.words_to_nibbles(packed) == q).all()
    for j in range(8):
        assert ((packed >> np.uint32(4 * j)) & 15 == q[:, j::8]).all()


def test_wrong_tensors_are_refused_by_name():
    with pytest.raises(ValueError, match="multiple of 32"):
        layout.packed_tensors(WeightFormat.F32, 8, 40)
    plain = random_plain(WeightFormat.Q4_1, 8, 32, 0)
    with pytest.raises(ValueError, match="q_min is missing"):
        layout.pack(WeightFormat.Q4_1, {k: v for k, v in plain.items() if k != "q_min"})
    with pytest.raises(ValueError, match="q_scale is float32"):
        layout.pack(WeightFormat.Q4_1, plain | {"q_scale": plain["q_scale"].astype(np.float32)})
    with pytest.raises(ValueError, match="outside 0"):
        layout.nibbles_to_words(np.array([[16] * 8]))
