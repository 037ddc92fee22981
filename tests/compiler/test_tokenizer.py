from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from harness.compiler.tokenization.normalization import PrecompiledMap
from harness.compiler.tokenization.tokenizer import (
    to_alc,
    to_hugging_face,
    visible_bytes,
    write_tokenizer,
)
from harness.compiler.tokenization.tokenizer_source import (
    TokenizerModel,
    TokenizerSource,
    TokenType,
)
from harness.errors import HarnessError, StageFailed, UsageError


@pytest.fixture
def source() -> TokenizerSource:
    """All bytes, two merges, a control token in front and a user-defined one at the end."""
    letters = tuple(visible_bytes())
    tokens = ("<end>", *letters, "he", "hel", "<tag>")
    kinds = (
        TokenType.CONTROL,
        *(TokenType.NORMAL for _ in range(len(letters) + 2)),
        TokenType.USER_DEFINED,
    )
    return TokenizerSource(
        model=TokenizerModel.BYTE_BPE,
        tokens=tokens,
        token_types=kinds,
        merges=(("h", "e"), ("he", "l")),
        pre="smollm",
        bos_token_id=0,
        eos_token_id=0,
        unknown_token_id=None,
        padding_token_id=None,
        add_bos=True,
        add_eos=False,
        chat_template=None,
    )


def test_the_stand_ins_cover_every_byte_once() -> None:
    table = visible_bytes()
    assert sorted(table.values()) == list(range(256))
    assert table["A"] == 0x41 and table["\u0120"] == 0x20 and table["\u010a"] == 0x0A


def test_the_compact_form_is_what_its_description_says(source: TokenizerSource) -> None:
    data = to_alc(source)
    body, (checksum,) = data[:-4], struct.unpack("<I", data[-4:])
    assert zlib.crc32(body) == checksum
    assert body[:8] == b"ALCTOKEN"
    version, kind, splitter, flags, unknown, strip, longest = struct.unpack_from("<7I", body, 8)
    assert (version, kind, splitter, flags) == (2, 1, 1, 0)
    assert (unknown, strip, longest) == (0xFFFFFFFF, 0, 0)
    n, m, r, s, k, x, t, p, b = struct.unpack_from("<9I", body, 36)
    assert (n, m, s, k, x, t, p) == (260, 2, 1, 0, 0, 0, 0)
    words = struct.unpack_from(f"<{s + n + 3 * m + r}I", body, 72)
    start, ends = words[:s], words[s : s + n]
    assert start == (0,)
    rest = body[72 + 4 * len(words) :]
    types, blob = rest[:n], rest[n:]
    assert len(blob) == b == ends[-1]
    assert list(types) == list(source.token_types)
    pieces = [blob[begin:end] for begin, end in zip((0, *ends), ends, strict=False)]
    assert pieces[0] == b"<end>" and pieces[-3:] == [b"he", b"hel", b"<tag>"]
    assert {piece[0] for piece in pieces[1:257]} == set(range(256))
    ids = {token: number for number, token in enumerate(source.tokens)}
    merges = words[s + n : s + n + 3 * m]
    assert merges == (ids["h"], ids["e"], ids["he"], ids["he"], ids["l"], ids["hel"])
    runs = words[s + n + 3 * m :]
    firsts = [run >> 8 for run in runs]
    assert firsts[0] == 0 and firsts == sorted(set(firsts))
    assert _class(runs, "a") == 1 and _class(runs, "7") == 2 + 4 and _class(runs, " ") == 3
    assert _class(runs, "!") == 0 and _class(runs, "\u6f22") == 1


def _class(runs: tuple[int, ...], letter: str) -> int:
    return next(run & 0xFF for run in reversed(runs) if run >> 8 <= ord(letter))


def test_the_hugging_face_form_is_read_by_its_library(
    source: TokenizerSource, tmp_path: Path
) -> None:
    write_tokenizer(source, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokens = tokenizer.encode("hello<tag> 12<end>").tokens
    assert tokens == ["hel", "l", "o", "<tag>", "\u0120", "1", "2", "<end>"]
    assert (tmp_path / "tokenizer.alc").read_bytes() == to_alc(source)


def test_gpt2_does_not_isolate_digits(source: TokenizerSource) -> None:
    other = replace(source, pre="gpt-2")
    tokenizer = Tokenizer.from_str(json.dumps(to_hugging_face(other)))
    assert tokenizer.pre_tokenizer.pre_tokenize_str("a 12")[1][0] == "\u012012"


@pytest.mark.parametrize(
    ("changes", "error", "cause"),
    [
        ({"pre": "deepseek-llm"}, UsageError, "deepseek-llm"),
        ({"byte_fallback": True}, StageFailed, "256"),
        ({"normalizer": (PrecompiledMap(b"\x08\0\0\0xx\0"),)}, StageFailed, "rules"),
        ({"merges": (("h", "\u00e9\u00e9"),)}, StageFailed, "\u00e9\u00e9"),
        ({"merges": (("h", "o"),)}, StageFailed, "'ho'"),
    ],
)
def test_what_is_not_supported_or_broken_is_one_clear_error(
    source: TokenizerSource, changes: dict[str, object], error: type[HarnessError], cause: str
) -> None:
    with pytest.raises(error) as caught:
        to_alc(replace(source, **changes))  # type: ignore[arg-type]
    assert cause in caught.value.cause and caught.value.remedy


def test_a_token_that_stands_for_no_byte_is_an_error(source: TokenizerSource) -> None:
    with pytest.raises(StageFailed) as caught:
        to_alc(replace(source, tokens=(*source.tokens[:-3], "\u6f22", *source.tokens[-2:])))
    assert "stands for no byte" in caught.value.cause or "needs" in caught.value.cause
