"""The packed layout against a reader written from its description, word by word."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compiler.kernels import layout
from harness.compiler.kernels.layout import WeightFormat

FORMATS = [
    WeightFormat.Q3_SYM_F16,
    WeightFormat.Q4_1,
    WeightFormat.Q4_SYM_F16,
    WeightFormat("q4_sym_bf16", 64),
    WeightFormat("q4_sym_f32", 128),
    WeightFormat.Q8_0,
    WeightFormat("q8_0", 64),
    WeightFormat.F16,
    WeightFormat.BF16,
    WeightFormat.F32,
]


def random_plain(fmt, rows, k, seed):
    rng = np.random.default_rng(seed)
    plain = {}
    for tensor in layout.plain_tensors(fmt, rows, k):
        size = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
        plain[tensor.part] = (
            np.frombuffer(rng.bytes(size), dtype=tensor.dtype).reshape(tensor.shape).copy()
        )
    if fmt.bits == 3:
        plain["q_weight"] &= np.uint32(2**30 - 1)
    return plain


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_packing_and_unpacking_give_back_every_bit(fmt, rows, groups, seed):
    k = groups * max(32, fmt.group)
    plain = random_plain(fmt, rows, k, seed)
    packed = layout.pack(fmt, plain)
    for tensor in layout.packed_tensors(fmt, rows, k):
        assert packed[tensor.part].shape == tensor.shape
        assert packed[tensor.part].dtype == np.dtype(tensor.dtype)
    back = layout.unpack(fmt, packed, rows)
    assert back.keys() == plain.keys()
    assert all(same_bits(back[part], plain[part]) for part in plain)


def float_of(value, dtype):
    """One stored scale or value, as struct reads a float32 whose upper half a bfloat16 is."""
    if dtype != "bfloat16":
        return np.float32(value)
    return np.float32(struct.unpack("<f", struct.pack("<HH", 0, value))[0])


def packed_value(fmt, packed, row, column):
    """One weight, read as the package's docstring says."""
    block, lane = divmod(row, 8)
    if not fmt.quantized:
        return float_of(packed["weight"][block, column, lane], fmt.dtype)
    scale = float_of(packed["q_scale"][block, column // fmt.group, lane], fmt.dtype)

    def byte(word):
        word = packed["q_weight"][block, step, 8 * word + lane]
        return word.tobytes()[inside % 4]

    if fmt.bits == 3:
        step, inside = divmod(column, 40)
        quad = inside // 4
        if quad < 8:
            q = byte(quad // 2) >> 3 * (quad % 2) & 7
        else:
            pair = 2 * (quad - 8)
            q = byte(pair) >> 6 | (byte(pair + 1) >> 6) << 2
        return np.float32(q - 3) * scale
    step, inside = divmod(column, 32)
    if fmt.bits == 8:
        return np.float32(np.int8(np.uint8(byte(inside // 4)))) * scale
    nibble = byte(inside // 8) >> 4 if inside % 8 >= 4 else byte(inside // 8) & 15
    if fmt.has_minimum:
        minimum = float_of(packed["q_min"][block, column // fmt.group, lane], fmt.dtype)
        return np.float32(nibble) * scale + minimum
    return np.float32(nibble - 7) * scale


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_packed_weight_lies_where_the_description_says(fmt):
    rows, k = 13, 2 * max(32, fmt.group)
    plain = random_plain(fmt, rows, k, 7)
    for part in plain:
        if part != "q_weight":
            values = np.random.default_rng(1).random(plain[part].shape, np.float32)
            plain[part] = layout.narrow(values, fmt.dtype)
    packed = layout.pack(fmt, plain)
    values = layout.dequantize(fmt, plain)
    for row in range(rows):
        for column in range(k):
            assert packed_value(fmt, packed, row, column) == values[row, column]


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


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32))
def test_words_hold_ten_values_of_3_bits_lowest_first(rows, words, seed):
    q = np.random.default_rng(seed).integers(0, 8, (rows, 10 * words), dtype=np.uint8)
    packed = layout.threes_to_words(q)
    assert (layout.words_to_threes(packed) == q).all()
    for j in range(10):
        assert ((packed >> np.uint32(3 * j)) & 7 == q[:, j::10]).all()
    assert not (packed >> 30).any()


def test_3_bits_fill_the_last_group_up():
    plain = random_plain(WeightFormat.Q3_SYM_F16, 3, 64, 0)
    assert plain["q_weight"].shape == (3, 8) and plain["q_scale"].shape == (3, 2)
    assert layout.dequantize(WeightFormat.Q3_SYM_F16, plain).shape == (3, 80)
    assert layout.plain_tensors(WeightFormat.Q3_SYM_F16, 3, 80) == layout.plain_tensors(
        WeightFormat.Q3_SYM_F16, 3, 64
    )


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_format_is_read_back_from_its_name(fmt):
    assert WeightFormat.parse(str(fmt)) == fmt


def test_names_say_the_group_where_it_is_not_the_usual_one():
    assert str(WeightFormat.Q4_SYM_F16) == "q4_sym_f16"
    assert str(WeightFormat("q4_sym_f16", 64)) == "q4_sym_f16/64"
    assert WeightFormat.parse("q8_0/32") == WeightFormat.Q8_0


@pytest.mark.parametrize(
    "text", ["", "q4_2", "q4_1/64", "q4_sym_f16/", "q4_sym_f16/-64", "q4_sym_f16/²", "f32/32"]
)
def test_a_name_that_is_no_format_is_refused(text):
    with pytest.raises(ValueError, match=r"no weight format|has groups of"):
        WeightFormat.parse(text)


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    values = np.array(
        [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 1e-40, 3.4e38, np.inf],
        np.float32,
    )
    found = layout.widen(layout.narrow(values, "bfloat16"), "bfloat16")
    expected = [0, 0, 1, 1, 1 + 2**-6, 1 + 2**-7, 1e-40, np.inf, np.inf]
    assert np.allclose(found, np.array(expected, np.float32), rtol=0, atol=2e-41)
    assert np.signbit(found[1])
    everything = np.arange(2**16, dtype=np.uint16)
    back = layout.narrow(layout.widen(everything, "bfloat16"), "bfloat16")
    number = ~np.isnan(layout.widen(everything, "bfloat16"))
    assert (back[number] == everything[number]).all()
    assert np.isnan(layout.widen(back[~number], "bfloat16")).all()


def test_wrong_tensors_are_refused_by_name():
    for fmt, k, multiple in (
        (WeightFormat.F32, 40, 32),
        (WeightFormat.Q8_0, 40, 32),
        (WeightFormat("q4_sym_f16", 64), 96, 64),
        (WeightFormat("q8_0", 128), 192, 128),
    ):
        with pytest.raises(ValueError, match=f"multiple of {multiple}"):
            layout.packed_tensors(fmt, 8, k)
    plain = random_plain(WeightFormat.Q4_1, 8, 32, 0)
    with pytest.raises(ValueError, match="q_min is missing"):
        layout.pack(WeightFormat.Q4_1, {k: v for k, v in plain.items() if k != "q_min"})
    with pytest.raises(ValueError, match="q_scale is float32"):
        layout.pack(WeightFormat.Q4_1, plain | {"q_scale": plain["q_scale"].astype(np.float32)})
    with pytest.raises(ValueError, match="outside 0"):
        layout.nibbles_to_words(np.array([[16] * 8]))
    with pytest.raises(ValueError, match="outside 0"):
        layout.threes_to_words(np.array([[8] * 10]))
    plain = random_plain(WeightFormat.Q3_SYM_F16, 8, 40, 0)
    plain["q_weight"][3, 1] |= np.uint32(2**31)
    with pytest.raises(ValueError, match="more than ten"):
        layout.pack(WeightFormat.Q3_SYM_F16, plain)
