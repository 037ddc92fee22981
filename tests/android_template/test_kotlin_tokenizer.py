"""The Kotlin tokenizer against the `tokenizers` library, id for id."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from harness.compiler.tokenization.tokenizer import write_tokenizer
from harness.compiler.tokenization.tokenizer_source import TokenizerSource

MANY = settings(
    max_examples=1500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Pieces on which the pattern's alternatives compete, among them characters of each class.
PIECES = [
    " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\x85", "\x1c", "\x00", "\x04",
    "'s", "'S", "'re", "'ll", "'", "''", "a", "B", "the", "\u00e9", "e\u0301", "\u00df", "\u1e9e",
    "\u6f22\u5b57", "\u0e44\u0e17\u0e22", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0661", "7", "42", "\u00b2", "\u2167", "\u3250", "\u00bd", "\U00011de0", "\U0001d7d8",
    "\U0001f600", "\U0001f1e9\U0001f1ea", "\U0001f468\u200d\U0001f469", "\ufe0f", "\ufffd",
    "!", "...", "->", "#", "{", "}", "_", "\u20ac", "\U0010fffd", "\ue000",
    "<|im_end|>", "<|im_", "<file_sep>",
    "\ud800", "\udfff",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
    st.text("ab '\n 1\u00e9", max_size=60),
)


@pytest.fixture(scope="module")
def folder(smollm2: TokenizerSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(smollm2, path)
    return path


@pytest.fixture(scope="module")
def reference(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def tokenizer(kotlin: Any, folder: Path) -> Any:
    assert kotlin.open_tokenizer(folder / "tokenizer.alc") == 49152
    return kotlin


def _valid(text: str) -> str:
    """What the engine makes of unpaired surrogates, which Python's reference refuses."""
    units = text.encode("utf-16-be", "surrogatepass")
    return units.decode("utf-16-be", "replace") if _has_surrogates(text) else text


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _plain(reference: Tokenizer, text: str) -> list[int]:
    """The reference's ids with special tokens taken as text."""
    reference.encode_special_tokens = True
    try:
        ids: list[int] = reference.encode(text).ids
        return ids
    finally:
        reference.encode_special_tokens = False


def test_the_tested_sentence_has_the_known_ids(tokenizer: Any) -> None:
    assert tokenizer.encode("Hello, how are you?") == [19556, 28, 638, 359, 346, 47]


@MANY
@given(TEXTS)
@example("a  \n b")
@example("'s're'll'x")
@example("\u3250\U00011de0 \U00011de0\u3250")
@example("a\x04b\x13c")
@example("  \u3250")
def test_plain_text_has_the_ids_of_the_reference(
    tokenizer: Any, reference: Tokenizer, text: str
) -> None:
    if _has_surrogates(text):
        return
    assert tokenizer.encode(text) == _plain(reference, text)


@MANY
@given(TEXTS)
@example("<|im_start|>system\nx<|im_end|>\n<|im_end|><file_sep><filename><|im_")
def test_markup_has_the_ids_of_the_reference(
    tokenizer: Any, reference: Tokenizer, text: str
) -> None:
    if _has_surrogates(text):
        return
    assert tokenizer.encode(text, markup=True) == reference.encode(text).ids


@MANY
@given(TEXTS)
def test_ids_decode_to_the_text_at_once_and_in_pieces(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    assert whole == tokenizer.decode_in_pieces(ids)
    if not _drops_bytes(text):
        assert whole == _valid(text)


@MANY
@given(st.lists(st.integers(0, 49151), max_size=30))
def test_any_ids_decode_as_the_reference_decodes_them(
    tokenizer: Any, reference: Tokenizer, ids: list[int]
) -> None:
    expected = _one_replacement(reference.decode(ids, skip_special_tokens=False))
    assert _one_replacement(tokenizer.decode(ids)) == expected
    assert _one_replacement(tokenizer.decode_in_pieces(ids)) == expected


def _one_replacement(text: str) -> str:
    """How many U+FFFD stand for bytes that are no UTF-8 differs between Java and Rust."""
    return re.sub("\ufffd+", "\ufffd", text)


@given(st.sampled_from(["\ud800", "\udc00", "a\ud83d", "\ude00\ud83d", "x\udfffy"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_an_unpaired_surrogate_counts_as_a_replacement_character(tokenizer: Any, text: str) -> None:
    assert tokenizer.encode(text) == tokenizer.encode(_valid(text))
    assert "\ufffd" in _valid(text)


def test_every_character_has_the_ids_of_the_reference(tokenizer: Any, reference: Tokenizer) -> None:
    # Behind the second plane only a few blocks are assigned, and those alike.
    blocks = (range(0xD800), range(0xE000, 0x20000), range(0xE0000, 0xE0200))
    points = [chr(point) for block in blocks for point in block]
    for separator in ("  ", "a"):
        text = separator.join(points)
        assert tokenizer.encode(text) == _plain(reference, text)


def test_source_code_and_documents_have_the_ids_of_the_reference(
    tokenizer: Any, reference: Tokenizer
) -> None:
    for path in sorted(Path("harness").rglob("*.py"))[:40] + sorted(Path().glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert tokenizer.encode(text) == _plain(reference, text), path


def test_time_is_in_proportion_to_the_length(tokenizer: Any) -> None:
    # One unbroken word is the worst case; a quadratic encoder would need 64 times as long.
    short, long = "ab" * 20_000, "ab" * 160_000
    tokenizer.encode_nanos(short)
    ratio = min(tokenizer.encode_nanos(long) for _ in range(3)) / min(
        tokenizer.encode_nanos(short) for _ in range(3)
    )
    assert ratio < 24


@pytest.mark.parametrize("cut", [0, 3, 8, 40, 5000, -1])
def test_a_truncated_file_is_named_as_damage(
    tokenizer: Any, folder: Path, tmp_path: Path, cut: int
) -> None:
    broken = tmp_path / "tokenizer.alc"
    broken.write_bytes((folder / "tokenizer.alc").read_bytes()[:cut])
    with pytest.raises(tokenizer.Failed, match="model-damaged"):
        tokenizer.open_tokenizer(broken)


def test_a_flipped_bit_is_named_as_damage(tokenizer: Any, folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "tokenizer.alc").read_bytes())
    data[len(data) // 2] ^= 1
    broken = tmp_path / "tokenizer.alc"
    broken.write_bytes(data)
    with pytest.raises(tokenizer.Failed, match="model-damaged"):
        tokenizer.open_tokenizer(broken)


@pytest.mark.parametrize("word", [0, 1, 2])
def test_another_version_or_kind_is_refused_by_name(
    tokenizer: Any, folder: Path, tmp_path: Path, word: int
) -> None:
    data = bytearray((folder / "tokenizer.alc").read_bytes())[:-4]
    struct.pack_into("<I", data, 8 + 4 * word, 9)
    other = tmp_path / "tokenizer.alc"
    other.write_bytes(data + struct.pack("<I", zlib.crc32(data)))
    with pytest.raises(tokenizer.Failed, match="model-incompatible"):
        tokenizer.open_tokenizer(other)


def test_a_missing_file_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(tokenizer.Failed, match="model-not-found"):
        tokenizer.open_tokenizer(tmp_path / "none.alc")


def _drops_bytes(text: str) -> bool:
    """Whether the vocabulary lacks a byte of the text; SmolLM2's has no token for these."""
    lacking = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}
    return bool(lacking & set(_valid(text).encode()))
