"""The Kotlin JSON grammar against Python's own parser."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from harness.compiler.tokenization.tokenizer import write_tokenizer
from harness.compiler.tokenization.tokenizer_source import TokenizerSource
from harness.tools import jdk

SOURCE = Path(__file__).with_name("JsonCases.java")
OBJECTS = 500
CHANGED = 1500
SAID = 400

# What may be missing of a character, of an escape or pair of them, and of all else.
_REST_OF_CHARACTER = [b"", b"\x80", b"\xa0", b"\x90", b"\x80\x80", b"\xa0\x80", b"\x90\x80\x80"]
_REST_OF_CHARACTER += [b"\x80\x80\x80"]
_PAIR = b"\\udc00"
_REST_OF_ESCAPE = [b"n", *(b"0" * count for count in range(1, 5))]
_REST_OF_ESCAPE += [_PAIR[start:] for start in range(5)]
_REST_OF_ESCAPE += [b"0" + _PAIR, b"00" + _PAIR]
_REST_OF_STRING = [
    rest + end for rest, end in product(_REST_OF_CHARACTER + _REST_OF_ESCAPE, [b'"', b'":0', b""])
]
_WORDS = [word[start:] for word in (b"true", b"false", b"null") for start in range(1, len(word))]
_RESTS = [*_REST_OF_STRING, b"0", b":0", b'"":0', *_WORDS]


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)


def _is_object(text: bytes) -> bool:
    """Whether Python reads an object, of characters only and with numbers only for numbers."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _closers(text: bytes) -> bytes:
    """The brackets that close what is open behind `text`."""
    bare = re.sub(rb'"(?:[^"\\]|\\.)*(?:"|\\?$)', b"", text, flags=re.DOTALL)
    found: list[bytes] = []
    for mark in re.findall(rb"[\[\]{}]", bare):
        if mark in b"[{":
            found.append(b"]" if mark == b"[" else b"}")
        elif found:
            found.pop()
    return b"".join(reversed(found))


def _begins_an_object(text: bytes) -> bool:
    if not text.strip():
        return True
    closers = _closers(text)
    return any(_is_object(text + rest + closers) for rest in _RESTS)


def _breaks_a_bound(text: bytes) -> bool:
    """Whether `text` has more blanks or digits in a row than the grammar takes."""
    bare = re.sub(rb'"(?:[^"\\]|\\.)*(?:"|\\?$)', b'"', text, flags=re.DOTALL)
    gaps = re.findall(rb"[ \t\r\n]+", bare)
    long = any(not re.fullmatch(rb"[ \t]|\n[ \t]{0,32}", gap) for gap in gaps)
    behind = not _closers(text) and bare.endswith((b" ", b"\t", b"\n", b"\r")) and b"{" in bare
    return long or behind or bool(re.search(rb"[eE][+-]?\d{3}|\d{21}", bare))


def _objects(chance: random.Random) -> Iterator[bytes]:
    def value(levels: int) -> Any:
        kind = chance.randrange(8 if levels else 6)
        if kind == 0:
            return chance.choice([True, False, None])
        if kind == 1:
            return chance.choice([0, -1, 7, 10**19, -0.0, 1.5, 1e-7, 2.5e30, -12.25])
        if kind < 6:
            return text()
        if kind == 6:
            return [value(levels - 1) for _ in range(chance.randrange(4))]
        return members(levels - 1)

    def text() -> str:
        letters = 'ab}]{[,:0 "\\/\n\t\x00\x7f\u00e9\u20ac\ud7ff\ue000\uffff\U00010000\U0010ffff'
        return "".join(chance.choices(letters, k=chance.randrange(6)))

    def members(levels: int) -> dict[str, Any]:
        return {text(): value(levels) for _ in range(chance.randrange(4))}

    while True:
        yield json.dumps(
            members(3),
            ensure_ascii=chance.random() < 0.5,
            indent=chance.choice([None, None, 0, 2, "\t"]),
            separators=chance.choice([None, (",", ":"), (" ,", "\t:\n")]),
        ).encode()


def _changed(text: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(text))
    way = chance.randrange(4)
    if way == 0:
        return text[:at] + text[at + 1 :]
    if way == 1:
        return text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]
    if way == 2:
        return text[:at] + bytes([chance.choice(text)]) + text[at:]
    return text[:at] + bytes([chance.choice(b'{}[]",:\\u-0.eE \n\r\tdD8')]) + text[at:]


def _run(jars: str, *arguments: str, stdin: bytes = b"") -> io.BytesIO:
    command: list[str | Path] = [jdk.find().java, "-cp", jars, SOURCE, *arguments]
    return io.BytesIO(
        subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True).stdout
    )


def _take(jars: str, texts: Sequence[bytes]) -> list[tuple[int, bool]]:
    packed = b"".join(struct.pack(">i", len(text)) + text for text in texts)
    answers = _run(jars, "take", stdin=struct.pack(">i", len(texts)) + packed)
    return [struct.unpack(">i?", answers.read(5)) for _ in texts]


def test_the_grammar_takes_what_python_reads_and_refuses_where_it_cannot(kotlin_jars: str) -> None:
    chance = random.Random(8)
    source = _objects(chance)
    whole = [next(source) for _ in range(OBJECTS)]
    changed = [_changed(next(source), chance) for _ in range(CHANGED)]
    answers = _take(kotlin_jars, whole + changed)
    for text, answer in zip(whole, answers[:OBJECTS], strict=True):
        assert answer == (len(text), True), text
    refused = 0
    for text, (taken, finished) in zip(changed, answers[OBJECTS:], strict=True):
        if finished:
            assert _is_object(text[:taken]), text
        else:
            assert _begins_an_object(text[:taken]), text[:taken]
        if taken < len(text) and not _breaks_a_bound(text[: taken + 1]):
            refused += 1
            assert not _begins_an_object(text[: taken + 1]), text[: taken + 1]
    assert refused > CHANGED / 4


def test_python_reads_whatever_the_grammar_lets_a_model_say(
    kotlin_jars: str, smollm2: TokenizerSource, tmp_path: Path
) -> None:
    write_tokenizer(smollm2, tmp_path)
    answers = _run(kotlin_jars, "say", str(tmp_path / "tokenizer.alc"), str(SAID))
    ends = 0
    for _ in range(SAID):
        (size,) = struct.unpack(">i", answers.read(4))
        text = answers.read(size)
        (finished,) = struct.unpack(">?", answers.read(1))
        ends += finished
        assert _is_object(text) if finished else _begins_an_object(text), text
    assert SAID / 10 < ends < SAID * 9 / 10
