"""Writes a package's tokenizer: Hugging Face's `tokenizer.json` and the compact `tokenizer.alc`.

`tokenizer.alc`, version 1, little-endian, everything before the last word protected by it:

    char[8]  "ALCTOKEN"
    u32      version, 1
    u32      kind of model, 1: byte-level byte-pair encoding
    u32      kind of splitter, 1: GPT-2's pattern (after the isolated characters, see below)
    u32      n tokens
    u32      m merges
    u32      r runs of characters
    u32      s start tokens
    u32      b bytes of all tokens
    u32[s]   the tokens that a text on its own begins with
    u32[n]   where each token's bytes end; token i is bytes[end[i-1]:end[i]]
    u32[3*m] left, right and resulting token of each merge, in order of rank
    u32[r]   first code point << 8 | class, rising; a run ends where the next begins. A class is 0
             for others, 1 letters, 2 numbers, 3 white space, plus 4 where the splitter makes the
             character a piece of its own before it applies its pattern
    u8[n]    type of each token, numbered as GGUF does
    u8[b]    the tokens' bytes: ordinary ones as they stand in a text, control tokens in UTF-8
    u32      CRC-32 (zlib's) of all of the above

The classes of characters are those of the `tokenizers` library, and travel in the file because
every Java and every Android release has another version of Unicode.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import files
from harness.compiler.tokenizer_source import TokenizerSource, TokenType
from harness.errors import StageFailed, UsageError

MAGIC = b"ALCTOKEN"
VERSION = 1
KIND_BYTE_BPE = 1
SPLITTER_GPT2 = 1

OTHER, LETTER, NUMBER, SPACE, ISOLATED = 0, 1, 2, 3, 4

# By llama.cpp's names: whether each number is a piece of its own before GPT-2's pattern applies.
SPLITTERS = {"gpt-2": False, "smollm": True}


def write_tokenizer(source: TokenizerSource, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer.alc` into `folder`.

    Raises `UsageError` for a kind of tokenizer that is not supported, `StageFailed` if the
    source contradicts itself.
    """
    compact = to_alc(source)
    files.write_text(folder / "tokenizer.json", json.dumps(to_hugging_face(source)) + "\n")
    with files.atomic_file(folder / "tokenizer.alc") as file:
        file.write(compact)


def to_alc(source: TokenizerSource) -> bytes:
    """The compact form; the module's docstring describes it. Raises as `write_tokenizer`."""
    isolate = _check(source)
    ids = {token: number for number, token in enumerate(source.tokens)}
    texts = [
        _token_bytes(token, kind)
        for token, kind in zip(source.tokens, source.token_types, strict=True)
    ]
    merges = np.empty((len(source.merges), 3), dtype="<u4")
    for rank, (left, right) in enumerate(source.merges):
        try:
            merges[rank] = ids[left], ids[right], ids[left + right]
        except KeyError as problem:
            raise _broken(f"the merge of {left!r} and {right!r} needs {problem}") from problem
    runs = _runs(isolate)
    start = [source.bos_token_id] if source.add_bos and source.bos_token_id is not None else []
    blob = b"".join(texts)
    header = (VERSION, KIND_BYTE_BPE, SPLITTER_GPT2, len(texts), len(merges), len(runs))
    body = b"".join(
        (
            MAGIC,
            struct.pack("<8I", *header, len(start), len(blob)),
            np.array(start, dtype="<u4").tobytes(),
            np.cumsum([len(text) for text in texts], dtype="<u4").tobytes(),
            merges.tobytes(),
            runs.astype("<u4").tobytes(),
            bytes(source.token_types),
            blob,
        )
    )
    return body + struct.pack("<I", zlib.crc32(body))


def to_hugging_face(source: TokenizerSource) -> dict[str, Any]:
    """The document of `tokenizer.json`, as the `tokenizers` library reads it."""
    isolate = _check(source)
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    splitters: list[dict[str, Any]] = [{"type": "ByteLevel", **byte_level}]
    if isolate:
        splitters.insert(0, {"type": "Digits", "individual_digits": True})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind is TokenType.CONTROL,
            }
            for number, (token, kind) in enumerate(
                zip(source.tokens, source.token_types, strict=True)
            )
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(source.tokens)},
            "merges": [list(merge) for merge in source.merges],
        },
    }


def visible_bytes() -> dict[str, int]:
    """GPT-2's visible stand-in for each byte, by the stand-in.

    Printable Latin-1 characters stand for themselves, the other bytes for U+0100 and up
    (`bytes_to_unicode` in https://github.com/openai/gpt-2/blob/master/src/encoder.py).
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    table = {chr(byte): byte for byte in plain}
    table.update({chr(0x100 + number): byte for number, byte in enumerate(others)})
    return table


def _check(source: TokenizerSource) -> bool:
    """Whether numbers are isolated; raises for what the compact form cannot say."""
    if source.model != "bpe":
        raise _unsupported(f"its kind is {source.model}", "byte-level byte-pair encoding")
    if source.pre not in SPLITTERS:
        raise _unsupported(f"it splits text as {source.pre}", " and ".join(sorted(SPLITTERS)))
    if source.add_space_prefix:
        raise _unsupported("it puts a space before each text", "byte-level tokenizers without")
    if len(set(source.tokens)) != len(source.tokens):
        raise _broken("two of its tokens are equal")
    return SPLITTERS[source.pre]


def _token_bytes(token: str, kind: TokenType) -> bytes:
    if kind is not TokenType.NORMAL:
        return token.encode()
    table = _visible_bytes()
    try:
        return bytes(table[letter] for letter in token)
    except KeyError as problem:
        raise _broken(f"{problem} in the token {token!r} stands for no byte") from problem


@cache
def _visible_bytes() -> dict[str, int]:
    return visible_bytes()


@cache
def _runs(isolate: bool) -> npt.NDArray[np.uint32]:
    """The classes of all code points as runs, asked of the reference itself."""
    from tokenizers import Regex, pre_tokenizers

    points = np.array([*range(0xD800), *range(0xE000, 0x110000)], dtype=np.uint32)
    text = "".join(map(chr, points))
    classes = np.zeros(len(points), dtype=np.uint8)
    for pattern, value in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)):
        member = np.ones(len(points), dtype=bool)
        # With "removed", what is left are the characters outside the class.
        splitter = pre_tokenizers.Split(Regex(pattern), "removed")
        for begin, end in _spans(splitter, text):
            member[begin:end] = False
        classes[member] = value
    if isolate:
        single = np.zeros(len(points), dtype=bool)
        digits = pre_tokenizers.Digits(individual_digits=True)
        # Letters between them, because what stands between two digits is alone as well.
        for begin, end in _spans(digits, "a".join(text)):
            if end - begin == 1 and begin % 2 == 0:
                single[begin // 2] = True
        classes[single] |= ISOLATED
    first = np.flatnonzero(np.diff(classes, prepend=255))
    # Surrogates are no characters; a run that would cross them goes on behind them.
    return points[first] << np.uint32(8) | classes[first].astype(np.uint32)


def _spans(splitter: Any, text: str) -> Iterator[tuple[int, int]]:
    for _, span in splitter.pre_tokenize_str(text):
        yield span


def _unsupported(cause: str, known: str) -> UsageError:
    return UsageError(
        "the model's tokenizer is not supported",
        cause=f"{cause}; known are {known}",
        remedy="harness models list",
    )


def _broken(cause: str) -> StageFailed:
    return StageFailed(
        "the model's tokenizer contradicts itself",
        cause=cause,
        remedy="get the checkpoint again from its source",
    )
