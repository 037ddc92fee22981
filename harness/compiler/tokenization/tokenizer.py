"""Writes a package's tokenizer: Hugging Face's `tokenizer.json` and the compact `tokenizer.alc`.

`tokenizer.alc`, version 2, little-endian, everything before the last word protected by it:

    char[8]  "ALCTOKEN"
    u32      version, 2
    u32      model, numbered by `TokenizerModel`
    u32      splitter: 0 none, 1 GPT-2's pattern, 2 Llama 3's, 3 Qwen 2's, 4 a piece begins at each
             U+2581, 5 BERT's words
    u32      flags: 1 characters without a token become bytes, 2 neighbouring ones become one
             unknown token, 4 a piece that is a token is that token, 8 SentencePiece is the
             reference (user-defined symbols are found in the normalized text, scores are summed
             in single precision), 16 no space before punctuation in decoded WordPiece
    u32      the token for unknown characters, 2^32-1 if they are left out
    u32      leading spaces that decoding takes off the first token, 2^32-1 for all
    u32      characters of the longest word (WordPiece)
    u32      n tokens
    u32      m merges
    u32      r runs of characters
    u32      s start tokens
    u32      k ranks, 0 or n
    u32      x scores, 0 or n
    u32      t steps of normalization
    u32      p bytes of the prefix of continuing tokens (WordPiece)
    u32      b bytes of all tokens
    u32[s]   the tokens that a text on its own begins with
    u32[n]   where each token's bytes end; token i is bytes[end[i-1]:end[i]]
    u32[3*m] left, right and resulting token of each merge, in order of rank
    u32[r]   first code point << 8 | class, rising; a run ends where the next begins. A class is 0
             for others, 1 letters, 2 numbers, 3 white space, plus 4 where the splitter makes the
             character a piece of its own before it applies its pattern
    u32[k]   rank of each token in byte-pair encoding by scores: of the mergeable pairs the one
             with the lowest rank of its result is merged first
    f64[x]   score of each token (unigram); an unknown character's is the unknown token's
    t times  u32 code, u32 bytes, payload: a step of normalization, see `normalization.py`
    u8[p]    the prefix of continuing tokens
    u8[n]    type of each token, numbered by `TokenType`
    u8[b]    the tokens' bytes: of byte-level ones as they stand in a text, of BYTE tokens the byte,
             of others the token's text in UTF-8
    u32      CRC-32 (zlib's) of all of the above

The classes of characters are those of the `tokenizers` library, and travel in the file because
every Java and every Android release has another version of Unicode.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import files
from harness.compiler.tokenization import unicode_tables
from harness.compiler.tokenization.normalization import SPACE, PrecompiledMap, Prepend, PrependRule
from harness.compiler.tokenization.tokenizer_json import BYTE_TOKEN, PATTERNS
from harness.compiler.tokenization.tokenizer_source import (
    TokenizerModel,
    TokenizerSource,
    TokenType,
)
from harness.errors import StageFailed, UsageError

MAGIC = b"ALCTOKEN"
VERSION = 2
NONE = 0xFFFFFFFF
_NO_NUMBERS = np.empty(0, dtype=np.uint32)

# By their names: the splitter's number and the classes of characters that it goes by.
SPLITTERS = {
    "none": (0, None),
    "gpt-2": (1, "regex"),
    "smollm": (1, "digits"),
    "llama-bpe": (2, "regex"),
    "qwen2": (3, "regex"),
    "words": (4, None),
    "bert": (5, "bert"),
}


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
    _check(source)
    splitter, classes = SPLITTERS[source.pre]
    try:
        texts = [
            _token_bytes(source.model, token, kind)
            for token, kind in zip(source.tokens, source.token_types, strict=True)
        ]
        steps = [(step.code, step.payload()) for step in source.normalizer]
        prefix = source.continuing_prefix.encode()
    except UnicodeEncodeError as problem:
        raise _broken(f"a text in it is not Unicode: {problem}") from problem
    merges = _merges(source)
    runs = _NO_NUMBERS if classes is None else unicode_tables.classes(classes)
    start = [source.bos_token_id] if source.add_bos and source.bos_token_id is not None else []
    by_rank = source.model is TokenizerModel.SCORES_BPE
    ranks = _ranks(source.scores) if by_rank else _NO_NUMBERS
    scores = source.scores if source.model is TokenizerModel.UNIGRAM else ()
    blob = b"".join(texts)
    # A model of bytes leaves a byte out that it has no token for, as the library does.
    unknown = None if source.model is TokenizerModel.BYTE_BPE else source.unknown_token_id
    header = (
        VERSION,
        source.model,
        splitter,
        _flags(source),
        NONE if unknown is None else unknown,
        NONE if source.strip_spaces is None else source.strip_spaces,
        source.longest_word,
        *(len(texts), len(merges), len(runs), len(start), len(ranks), len(scores), len(steps)),
        *(len(prefix), len(blob)),
    )
    body = b"".join(
        (
            MAGIC,
            struct.pack("<16I", *header),
            np.array(start, dtype="<u4").tobytes(),
            np.cumsum([len(text) for text in texts], dtype="<u4").tobytes(),
            merges.tobytes(),
            runs.astype("<u4").tobytes(),
            ranks.astype("<u4").tobytes(),
            np.asarray(scores, dtype="<f8").tobytes(),
            *(struct.pack("<2I", code, len(payload)) + payload for code, payload in steps),
            prefix,
            bytes(source.token_types),
            blob,
        )
    )
    return body + struct.pack("<I", zlib.crc32(body))


def to_hugging_face(source: TokenizerSource) -> dict[str, Any]:
    """The document of `tokenizer.json`, as the `tokenizers` library reads it.

    The checkpoint's own where it has one. For what SentencePiece defines it says the same as
    far as that library can: it finds user-defined symbols before it normalizes.
    """
    _check(source)
    if source.document is not None:
        return source.document
    of_bytes = source.model is TokenizerModel.BYTE_BPE
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
                "special": kind is not TokenType.USER_DEFINED,
            }
            for number, (token, kind) in enumerate(
                zip(source.tokens, source.token_types, strict=True)
            )
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
            or (kind is TokenType.UNKNOWN and not of_bytes)
        ],
        "normalizer": _normalizer(source),
        "pre_tokenizer": _pre_tokenizer(source),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **_BYTE_LEVEL} if of_bytes else _decoder(source),
        "model": _unigram(source) if source.model is TokenizerModel.UNIGRAM else _bpe(source),
    }


_BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _bpe(source: TokenizerSource) -> dict[str, Any]:
    of_bytes = source.model is TokenizerModel.BYTE_BPE
    by_scores = source.model is TokenizerModel.SCORES_BPE
    unknown = None if of_bytes else source.unknown_token_id
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if unknown is None else source.tokens[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": source.fuse_unknown,
        "byte_fallback": source.byte_fallback,
        "ignore_merges": source.ignore_merges,
        "vocab": {token: number for number, token in enumerate(source.tokens)},
        "merges": _merges_by_score(source) if by_scores else [list(m) for m in source.merges],
    }


def _unigram(source: TokenizerSource) -> dict[str, Any]:
    scores = list(source.scores)
    if source.unknown_token_id is not None:
        # The library takes the penalty of an unknown character off the lowest score by itself.
        scores[source.unknown_token_id] = 0.0
    return {
        "type": "Unigram",
        "unk_id": source.unknown_token_id,
        "vocab": [list(entry) for entry in zip(source.tokens, scores, strict=True)],
        "byte_fallback": source.byte_fallback,
    }


def _merges_by_score(source: TokenizerSource) -> list[list[str]]:
    """Every way to merge two tokens into a third, the best third one first."""
    mergeable = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
    ids = {
        token: number
        for number, (token, kind) in enumerate(zip(source.tokens, source.token_types, strict=True))
        if kind in mergeable
    }
    merges = [
        (-source.scores[number], ids[token[:cut]], ids[token[cut:]])
        for token, number in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    return [[source.tokens[left], source.tokens[right]] for _, left, right in sorted(merges)]


def _normalizer(source: TokenizerSource) -> dict[str, Any] | None:
    documents = [document for step in source.normalizer for document in step.to_hugging_face()]
    return {"type": "Sequence", "normalizers": documents} if documents else None


def _pre_tokenizer(source: TokenizerSource) -> dict[str, Any] | None:
    if source.model is not TokenizerModel.BYTE_BPE:
        first = [
            {
                "type": "Metaspace",
                "replacement": step.text,
                "prepend_scheme": "first",
                "split": False,
            }
            for step in source.normalizer
            if isinstance(step, Prepend) and step.rules & PrependRule.FIRST_ONLY
        ]
        return first[0] if first else None
    byte_level: dict[str, Any] = {"type": "ByteLevel", **_BYTE_LEVEL}
    before: list[dict[str, Any]] = []
    if source.pre == "smollm":
        before = [{"type": "Digits", "individual_digits": True}]
    elif source.pre != "gpt-2":
        byte_level["use_regex"] = False
        pattern = next(pattern for pattern, name in PATTERNS.items() if name == source.pre)
        before = [
            {
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": False,
            }
        ]
    return {"type": "Sequence", "pretokenizers": [*before, byte_level]}


def _decoder(source: TokenizerSource) -> dict[str, Any]:
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if source.strip_spaces:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": decoders}


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


def _check(source: TokenizerSource) -> None:
    """Raises for what the compact form cannot say."""
    if source.pre not in SPLITTERS:
        raise _unsupported(f"it splits text as {source.pre}", " and ".join(sorted(SPLITTERS)))
    if len(set(source.tokens)) != len(source.tokens):
        twice, _ = Counter(source.tokens).most_common(1)[0]
        raise _broken(f"the token {twice!r} has two ids")
    if not source.tokens:
        raise _broken("it has no tokens")
    for step in source.normalizer:
        if isinstance(step, PrecompiledMap) and not _is_whole(step.data):
            raise _broken("its precompiled rules of normalization are not whole")
        if isinstance(step, Prepend) and not step.text:
            raise _broken("it puts an empty text in front")
    if source.byte_fallback:
        found = {
            token
            for token, kind in zip(source.tokens, source.token_types, strict=True)
            if kind is TokenType.BYTE
        }
        lacking = [name for name in (f"<0x{byte:02X}>" for byte in range(256)) if name not in found]
        if lacking:
            raise _broken(f"it falls back to bytes and lacks {len(lacking)} of them: {lacking[0]}")


def _is_whole(charsmap: bytes) -> bool:
    """Whether SentencePiece's precompiled rules have the parts that they announce."""
    if len(charsmap) < 8:
        return False
    size: int = struct.unpack_from("<I", charsmap)[0]
    return 0 < size < len(charsmap) - 4 and size % 4 == 0 and charsmap.endswith(b"\0")


def _flags(source: TokenizerSource) -> int:
    flags = (
        source.byte_fallback,
        source.fuse_unknown,
        source.ignore_merges,
        source.sentencepiece,
        source.clean_up,
    )
    return sum(1 << bit for bit, value in enumerate(flags) if value)


def _merges(source: TokenizerSource) -> npt.NDArray[np.uint32]:
    """The merges by their tokens' ids, [n, 3].

    Those that make a control token of letters are left out, which the library takes along: a
    user's text must not become one.
    """
    ids = {token: number for number, token in enumerate(source.tokens)}
    merges = []
    for left, right in source.merges:
        try:
            merge = ids[left], ids[right], ids[left + right]
        except KeyError as problem:
            raise _broken(f"the merge of {left!r} and {right!r} needs {problem}") from problem
        if source.token_types[merge[2]] not in (TokenType.CONTROL, TokenType.UNKNOWN):
            merges.append(merge)
    return np.array(merges, dtype="<u4").reshape(-1, 3)


def _ranks(scores: tuple[float, ...]) -> npt.NDArray[np.uint32]:
    """The highest score has the rank 0, equal ones the same."""
    _, ranks = np.unique(-np.asarray(scores, dtype=np.float32), return_inverse=True)
    return ranks.astype(np.uint32)


def _token_bytes(model: TokenizerModel, token: str, kind: TokenType) -> bytes:
    if kind is TokenType.BYTE:
        found = BYTE_TOKEN.fullmatch(token)
        if found is None:
            raise _broken(f"the token {token!r} stands for no byte")
        return bytes.fromhex(found[1])
    if model is not TokenizerModel.BYTE_BPE or kind is not TokenType.NORMAL:
        return token.encode()
    table = _visible_bytes()
    try:
        return bytes(table[letter] for letter in token)
    except KeyError as problem:
        raise _broken(f"{problem} in the token {token!r} stands for no byte") from problem


@cache
def _visible_bytes() -> dict[str, int]:
    return visible_bytes()


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
