"""A `tokenizer.model`: the protocol buffer that SentencePiece writes.

Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto and
https://protobuf.dev/programming-guides/encoding/. The few fields that matter are read by hand,
so that no length in a damaged file is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np

from harness.compiler.tokenization.normalization import (
    SPACE,
    PrecompiledMap,
    Prepend,
    PrependRule,
    Replace,
    Squeeze,
    Step,
    Strip,
)
from harness.compiler.tokenization.tokenizer_source import (
    TokenizerModel,
    TokenizerSource,
    TokenType,
)
from harness.errors import StageFailed, UsageError

_MODELS = {1: TokenizerModel.UNIGRAM, 2: TokenizerModel.SCORES_BPE}
_OTHER_MODELS = {3: "words", 4: "characters"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = struct.Struct("<f")
# kUnkPenalty in SentencePiece's src/unigram_model.cc: how far an unknown character's score is
# below the least likely piece's.
_UNKNOWN_PENALTY = 10.0


def read_sentencepiece(path: Path, *, prefix_rules: int = 0) -> TokenizerSource:
    """The tokenizer in the `tokenizer.model` at `path`.

    `prefix_rules` are flags of `PrependRule` for the space before a text, of which the file says
    only whether there is one. Raises `StageFailed` if the file is damaged or contradicts itself,
    `UsageError` if it asks for what is not supported.
    """
    try:
        return _source(_model(path.read_bytes()), prefix_rules)
    except (_Damaged, OSError) as problem:
        raise StageFailed(
            f"cannot read {path} as a SentencePiece model",
            cause=str(problem),
            remedy=f"ls -l {path}   # get the file again from its source",
        ) from problem
    except _Unsupported as problem:
        raise UsageError(
            f"{path} is a SentencePiece model of a form that is not supported",
            cause=str(problem),
            remedy="harness models list",
        ) from problem


def sentencepiece_steps(
    charsmap: bytes, *, prefix: bool, prefix_rules: int, remove_spaces: bool
) -> tuple[Step, ...]:
    """SentencePiece's normalization: its rules, extra spaces, the dummy prefix, U+2581.

    Order as in `Normalizer::Normalize` (SentencePiece's src/normalizer.cc). `prefix_rules` are
    flags of `PrependRule`.
    """
    steps: list[Step] = []
    if charsmap:
        steps.append(PrecompiledMap(charsmap))
    if remove_spaces:
        steps += [Strip(left=True, right=False, characters=" "), Squeeze(" ")]
    if prefix:
        steps.append(Prepend(SPACE, prefix_rules | PrependRule.EVEN_EMPTY))
    steps.append(Replace(" ", SPACE))
    if remove_spaces:
        steps.append(Strip(left=False, right=True, characters=SPACE))
    return tuple(steps)


def unigram_scores(
    tokens: tuple[str, ...], types: tuple[TokenType, ...], scores: tuple[float, ...], unknown: int
) -> tuple[float, ...]:
    """The scores that SentencePiece's search uses, in its arithmetic.

    A user-defined symbol beats what it is made of, and the unknown token, a character of it,
    loses to everything (`EncodeOptimized` in SentencePiece's src/unigram_model.cc, 0.2.3).
    """
    normal = [
        score for score, kind in zip(scores, types, strict=True) if kind is TokenType.NORMAL
    ] or [0.0]
    found = list(scores)
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind is TokenType.USER_DEFINED:
            found[number] = float(np.float32(0.1 * (len(token.encode()) - 1)))
    found[unknown] = float(np.float32(min(normal)) - np.float32(_UNKNOWN_PENALTY))
    return tuple(found)


class _Damaged(Exception):
    """The file is not whole, or contradicts itself."""


class _Unsupported(Exception):
    """The file asks for what is not known."""


@dataclass
class _Model:
    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[TokenType] = field(default_factory=list)
    kind: int = 1
    byte_fallback: bool = False
    space_suffix: bool = False
    special: dict[str, int] = field(
        default_factory=lambda: {"unknown": 0, "bos": 1, "eos": 2, "padding": -1}
    )
    charsmap: bytes = b""
    denormalizes: bool = False
    prefix: bool = True
    remove_spaces: bool = True
    escape_spaces: bool = True


def _model(data: bytes) -> _Model:
    model = _Model()
    for number, value in _fields(data):
        if number == 1:
            _piece(_submessage(value), model)
        elif number == 2:
            _trainer(_submessage(value), model)
        elif number == 3:
            for name, inner in _fields(_submessage(value)):
                if name == 2:
                    model.charsmap = _submessage(inner)
                elif name == 3:
                    model.prefix = _flag(inner)
                elif name == 4:
                    model.remove_spaces = _flag(inner)
                elif name == 5:
                    model.escape_spaces = _flag(inner)
        elif number == 5:
            fields = _fields(_submessage(value))
            model.denormalizes = any(name == 2 and inner != b"" for name, inner in fields)
    return model


def _piece(data: bytes, model: _Model) -> None:
    text, score, kind = "", 0.0, 1
    for number, value in _fields(data):
        if number == 1:
            try:
                text = _submessage(value).decode()
            except UnicodeDecodeError as problem:
                raise _Damaged(f"piece {len(model.tokens)} is not UTF-8") from problem
        elif number == 2:
            if not isinstance(value, bytes) or len(value) != 4:
                raise _Damaged(f"piece {len(model.tokens)} has no score")
            score = _FLOAT.unpack(value)[0]
        elif number == 3:
            kind = _integer(value)
    if not isfinite(score):
        raise _Damaged(f"piece {len(model.tokens)} has the score {score}")
    try:
        model.types.append(TokenType(kind))
    except ValueError as problem:
        raise _Damaged(f"piece {len(model.tokens)}: {problem}") from problem
    model.tokens.append(text)
    model.scores.append(score)


def _trainer(data: bytes, model: _Model) -> None:
    special = {40: "unknown", 41: "bos", 42: "eos", 43: "padding"}
    for number, value in _fields(data):
        if number == 3:
            model.kind = _integer(value)
        elif number == 24:
            model.space_suffix = _flag(value)
        elif number == 35:
            model.byte_fallback = _flag(value)
        elif number in special:
            # A negative int32 is written in ten bytes, as an int64.
            number_of = _integer(value)
            model.special[special[number]] = -1 if number_of >> 63 else number_of


def _source(model: _Model, prefix_rules: int) -> TokenizerSource:
    if model.kind not in _MODELS:
        name = _OTHER_MODELS.get(model.kind, f"number {model.kind}")
        raise _Unsupported(f"it is a model of {name}; known are BPE and unigram")
    if not model.escape_spaces:
        raise _Unsupported("it keeps spaces as they are (escape_whitespaces is false)")
    if model.space_suffix:
        raise _Unsupported("it puts spaces behind words (treat_whitespace_as_suffix)")
    if model.denormalizes:
        raise _Unsupported("it has a denormalizer")
    kind = _MODELS[model.kind]
    tokens, types = tuple(model.tokens), tuple(model.types)
    unknown = [number for number, value in enumerate(types) if value is TokenType.UNKNOWN]
    if len(unknown) != 1:
        raise _Damaged(f"{len(unknown)} of its {len(tokens)} pieces are the unknown token")
    steps = sentencepiece_steps(
        model.charsmap,
        prefix=model.prefix,
        prefix_rules=prefix_rules,
        remove_spaces=model.remove_spaces,
    )

    def named(name: str) -> int | None:
        number = model.special[name]
        return number if 0 <= number < len(tokens) else None

    scores = tuple(model.scores)
    if kind is TokenizerModel.UNIGRAM:
        scores = unigram_scores(tokens, types, scores, unknown[0])
    return TokenizerSource(
        model=kind,
        tokens=tokens,
        token_types=types,
        merges=(),
        pre="none",
        bos_token_id=named("bos"),
        eos_token_id=named("eos"),
        unknown_token_id=unknown[0],
        padding_token_id=named("padding"),
        # As transformers does for the models of Llama and Gemma, and not for T5's.
        add_bos=kind is TokenizerModel.SCORES_BPE,
        add_eos=kind is TokenizerModel.UNIGRAM,
        chat_template=None,
        scores=scores,
        normalizer=steps,
        byte_fallback=model.byte_fallback,
        fuse_unknown=True,
        sentencepiece=True,
        strip_spaces=1 if model.prefix or model.remove_spaces else 0,
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value, bytes for all but varints."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _Damaged(f"a field of the unknown kind {kind}")
        if length > len(data) - at:
            raise _Damaged(f"a field of {length} bytes where {len(data) - at} are left")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Damaged("a number that does not end")


def _submessage(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Damaged("a number where a message should be")
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _Damaged("bytes where a number should be")
    return value


def _flag(value: int | bytes) -> bool:
    return bool(_integer(value))
