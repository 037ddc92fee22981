"""The steps that change a text before it becomes tokens.

Each step says how it stands in `tokenizer.alc` (`code` and `payload`) and as which normalizer
of the `tokenizers` library it stands in `tokenizer.json`. What a step needs to know of Unicode
is asked of that library and travels in the payload, because every Java and every Android
release has another version of Unicode.
"""

from __future__ import annotations

import base64
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

from harness.compiler.tokenization import unicode_tables

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in the vocabularies of SentencePiece."""


class Step(ABC):
    """One change of a text."""

    code: ClassVar[int]

    @abstractmethod
    def payload(self) -> bytes:
        """The step's data in `tokenizer.alc`."""

    @abstractmethod
    def to_hugging_face(self) -> list[dict[str, Any]]:
        """The step as normalizers of `tokenizer.json`."""


@dataclass(frozen=True)
class CharactersMap(Step):
    """Changes each character by itself, as normalizers of the `tokenizers` library do.

    Payload: u32 count, then for each run of characters u32 first, u32 last, u32 bytes and the
    UTF-8 text that each of them becomes, in which U+FFFF stands for the character itself.
    """

    code = 1
    normalizers: tuple[tuple[tuple[str, Any], ...], ...]
    """The normalizers' documents, as sorted items so that they hash."""

    def payload(self) -> bytes:
        runs = unicode_tables.character_map(self.normalizers)
        parts = [struct.pack("<I", len(runs))]
        for first, last, text in runs:
            encoded = text.encode()
            parts.append(struct.pack("<3I", first, last, len(encoded)) + encoded)
        return b"".join(parts)

    def to_hugging_face(self) -> list[dict[str, Any]]:
        return [dict(items) for items in self.normalizers]


@dataclass(frozen=True)
class UnicodeForm(Step):
    """One of Unicode's normalization forms: NFC, NFD, NFKC, NFKD.

    Payload: u32 whether to compose; u32 count and for each decomposition u32 character,
    u32 n, u32[n] characters; u32 count and for each combining character u32 character << 8 |
    rank of its class, rising from 1; u32 count and for each composition u32 first, second,
    composed. Syllables of Hangul are not listed.
    """

    code = 2
    form: str

    def payload(self) -> bytes:
        tables = unicode_tables.normalization_form(self.form)
        words = [int(tables.composes), len(tables.decompositions)]
        for point, parts in tables.decompositions:
            words += [point, len(parts), *parts]
        words += [len(tables.classes), *(point << 8 | rank for point, rank in tables.classes)]
        words.append(len(tables.compositions))
        for triple in tables.compositions:
            words += triple
        return struct.pack(f"<{len(words)}I", *words)

    def to_hugging_face(self) -> list[dict[str, Any]]:
        return [{"type": self.form}]


@dataclass(frozen=True)
class PrecompiledMap(Step):
    """SentencePiece's compiled rules: the longest rule at each place applies.

    Payload: as SentencePiece stores it: u32 bytes of a double array, that double array, and
    zero-terminated texts.
    """

    code = 3
    data: bytes

    def payload(self) -> bytes:
        return self.data

    def to_hugging_face(self) -> list[dict[str, Any]]:
        encoded = base64.b64encode(self.data).decode()
        return [{"type": "Precompiled", "precompiled_charsmap": encoded}]


@dataclass(frozen=True)
class Replace(Step):
    """Replaces each `old` by `new`. Payload: u32 bytes of old, old, new."""

    code = 4
    old: str
    new: str

    def payload(self) -> bytes:
        old = self.old.encode()
        return struct.pack("<I", len(old)) + old + self.new.encode()

    def to_hugging_face(self) -> list[dict[str, Any]]:
        return [{"type": "Replace", "pattern": {"String": self.old}, "content": self.new}]


class PrependRule(IntEnum):
    """Which texts get a prefix; flags."""

    EVEN_EMPTY = 1
    """Also a text of which earlier steps left nothing."""
    UNLESS_PRESENT = 2
    """Not a text that begins with it."""
    FIRST_ONLY = 4
    """Not a text behind a special token."""


@dataclass(frozen=True)
class Prepend(Step):
    """Puts `text` in front. Payload: u32 flags of `PrependRule`, the text."""

    code = 5
    text: str
    rules: int = 0

    def payload(self) -> bytes:
        return struct.pack("<I", self.rules) + self.text.encode()

    def to_hugging_face(self) -> list[dict[str, Any]]:
        # Which text is the first one only a pre-tokenizer is told.
        first_only = self.rules & PrependRule.FIRST_ONLY
        return [] if first_only else [{"type": "Prepend", "prepend": self.text}]


@dataclass(frozen=True)
class Squeeze(Step):
    """Makes `text` of each run of two spaces and more. Payload: the text."""

    code = 6
    text: str

    def payload(self) -> bytes:
        return self.text.encode()

    def to_hugging_face(self) -> list[dict[str, Any]]:
        return [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": self.text}]


@dataclass(frozen=True)
class Strip(Step):
    """Takes characters off the ends. Payload: u32 1 for left + 2 for right, the characters."""

    code = 7
    left: bool
    right: bool
    characters: str

    def payload(self) -> bytes:
        return struct.pack("<I", self.left + 2 * self.right) + self.characters.encode()

    def to_hugging_face(self) -> list[dict[str, Any]]:
        return [{"type": "Strip", "strip_left": self.left, "strip_right": self.right}]
