"""What the `tokenizers` library knows of Unicode, as tables.

The tables are asked of the library itself, so they are those that a tokenizer was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

OTHER, LETTER, NUMBER, SPACE, ISOLATED = 0, 1, 2, 3, 4

ITSELF = "\uffff"
"""Stands for the character in what it becomes; Unicode assigns it to none."""

_HANGUL = range(0xAC00, 0xD7A4)
# Stand between characters that are asked for: nothing else is normalized to them.
_MARK, _FORM_MARK = "!", "\x01"


@dataclass(frozen=True)
class NormalizationForm:
    """A normalization form of Unicode; https://www.unicode.org/reports/tr15/ has the algorithm."""

    composes: bool
    decompositions: tuple[tuple[int, tuple[int, ...]], ...]
    """Characters with their full decompositions, without the syllables of Hangul."""
    classes: tuple[tuple[int, int], ...]
    """Combining characters with the rank of their combining class, from 1."""
    compositions: tuple[tuple[int, int, int], ...]
    """First and second character with what they compose to, without Hangul."""


@cache
def classes(splitter: str) -> npt.NDArray[np.uint32]:
    """The classes of all code points as runs: first code point << 8 | class, rising.

    `splitter` is `regex` (letters, numbers, white space), `digits` (the same, and each number
    isolated) or `bert` (white space, and punctuation isolated).
    """
    from tokenizers import Regex, pre_tokenizers

    points = _points()
    text = "".join(map(chr, points))
    found = np.zeros(len(points), dtype=np.uint8)
    if splitter == "bert":
        spans = list(_spans(pre_tokenizers.BertPreTokenizer(), "a".join(text)))
        # White space is what is in no piece.
        found[:] = SPACE
        for begin, end in spans:
            found[(begin + 1) // 2 : (end + 1) // 2] = OTHER
        found[_isolated(spans)] |= ISOLATED
    else:
        for pattern, value in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)):
            member = np.ones(len(points), dtype=bool)
            # With "removed", what is left are the characters outside the class.
            for begin, end in _spans(pre_tokenizers.Split(Regex(pattern), "removed"), text):
                member[begin:end] = False
            found[member] = value
        if splitter == "digits":
            digits = pre_tokenizers.Digits(individual_digits=True)
            found[_isolated(_spans(digits, "a".join(text)))] |= ISOLATED
    first = np.flatnonzero(np.diff(found, prepend=255))
    # Surrogates are no characters; a run that would cross them goes on behind them.
    return points[first] << np.uint32(8) | found[first].astype(np.uint32)


@cache
def character_map(
    documents: tuple[tuple[tuple[str, Any], ...], ...],
) -> tuple[tuple[int, int, str], ...]:
    """What the normalizers `documents` make of each character by itself.

    Runs of (first, last, text) for the characters that change, rising; in a text, `ITSELF`
    stands for the character.
    """
    points = [point for point in _points().tolist() if point != ord(_MARK)]
    normalizer = _normalizer([dict(items) for items in documents])
    texts = _normalized(normalizer, map(chr, points), _MARK)
    runs: list[tuple[int, int, str]] = []
    for point, text in zip(points, texts, strict=True):
        if text == chr(point):
            continue
        text = text.replace(chr(point), ITSELF)
        if runs and runs[-1][1] == point - 1 and runs[-1][2] == text:
            runs[-1] = runs[-1][0], point, text
        else:
            runs.append((point, point, text))
    return tuple(runs)


@cache
def normalization_form(form: str) -> NormalizationForm:
    """The tables of the form NFC, NFD, NFKC or NFKD."""
    # As plain integers: a range finds no numpy integer without looking at all of itself.
    points = [p for p in _points().tolist() if p != ord(_FORM_MARK) and p not in _HANGUL]
    decompose = _normalizer([{"type": form.replace("C", "D")}])
    canonical, compose = _normalizer([{"type": "NFD"}]), _normalizer([{"type": "NFC"}])
    decomposed = list(_normalized(decompose, map(chr, points)))
    composites = [
        (chr(point), parts)
        for point, parts in zip(points, _normalized(canonical, map(chr, points)), strict=True)
        if len(parts) > 1 and compose.normalize_str(chr(point)) == chr(point)
    ]
    compositions = [
        (*map(ord, compose.normalize_str(parts[:-1]) + parts[-1]), ord(whole))
        for whole, parts in composites
    ]
    return NormalizationForm(
        composes=form.endswith("C"),
        decompositions=tuple(
            (point, tuple(map(ord, text)))
            for point, text in zip(points, decomposed, strict=True)
            if text != chr(point)
        ),
        classes=_combining_classes(canonical, points),
        compositions=tuple(sorted(triple for triple in compositions if len(triple) == 3)),
    )


def _combining_classes(canonical: Any, points: list[int]) -> tuple[tuple[int, int], ...]:
    """Combining characters by how they change places with each other."""
    # U+0334 is of the lowest class and U+0345 of the highest: no combining character fails to
    # change places with one of them.
    low, high = "\u0334", "\u0345"
    letters = [chr(point) for point in points]
    marks = [
        letter
        for letter, above, below in zip(
            letters,
            _normalized(canonical, (letter + low for letter in letters)),
            _normalized(canonical, (high + letter for letter in letters)),
            strict=True,
        )
        if above == low + letter or below == letter + high
    ]
    pairs = ("".join(pair) for first in marks for pair in ((first, second) for second in marks))
    moved = np.array(
        [
            text != first + second
            for (first, second), text in zip(
                ((first, second) for first in marks for second in marks),
                _normalized(canonical, pairs),
                strict=True,
            )
        ]
    ).reshape(len(marks), len(marks))
    _, ranks = np.unique(moved.sum(axis=1), return_inverse=True)
    return tuple((ord(mark), int(rank) + 1) for mark, rank in zip(marks, ranks, strict=True))


def _points() -> npt.NDArray[np.uint32]:
    return np.array([*range(0xD800), *range(0xE000, 0x110000)], dtype=np.uint32)


def _isolated(spans: Iterable[tuple[int, int]]) -> npt.NDArray[np.intp]:
    """Which of the characters that stand between letters are pieces of their own.

    Letters between them, because what stands between two isolated ones is alone as well.
    """
    return np.array(
        [begin // 2 for begin, end in spans if end - begin == 1 and begin % 2 == 0], dtype=np.intp
    )


def _spans(splitter: Any, text: str) -> Iterator[tuple[int, int]]:
    for _, span in splitter.pre_tokenize_str(text):
        yield span


def _normalizer(documents: list[dict[str, Any]]) -> Any:
    from tokenizers import Tokenizer

    # Only a whole tokenizer is made from a document.
    document = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": documents},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    return Tokenizer.from_str(json.dumps(document)).normalizer


def _normalized(normalizer: Any, texts: Iterable[str], mark: str = _FORM_MARK) -> Iterator[str]:
    # In parts, for the sake of memory.
    rest = iter(texts)
    while part := list(islice(rest, 2000)):
        yield from normalizer.normalize_str(mark.join(part)).split(mark)
