"""Class files whose names fit dex: Kotlin lets a test's name be a sentence, dex does not.

A class file keeps its names, descriptors and texts in one table of constants (The Java Virtual
Machine Specification, 4.4). What dex's SimpleName (Dalvik executable format, "SimpleName syntax")
has no room for becomes an underscore there, in the same way in every class, so that classes still
find each other. Texts that the program itself uses stay as they are.
"""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

from harness.errors import StageFailed

_MAGIC = 0xCAFEBABE
_UTF8, _STRING = 1, 8
# The size of each other kind of constant after its tag, in bytes; long and double take two places.
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4}
_SIZES |= {15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
_WIDE = {5, 6}
# Beside letters, digits, $, _ and -: what descriptors and generic signatures are written with.
_UNFIT = re.compile(rb"[^\w$\-/;()\[<>:.*+^\x80-\xff]")


def fit_for_dex(source: Path, target: Path) -> None:
    """Copy the jar `source` to `target` with names that dex can hold.

    Raises `StageFailed` if a class in it is not a class file.
    """
    with zipfile.ZipFile(source) as jar, zipfile.ZipFile(target, "w") as copy:
        for name in sorted(jar.namelist()):
            data = jar.read(name)
            if name.endswith(".class"):
                copy.writestr(_fit(name.encode()).decode(), renamed(data, name))
            elif not name.endswith("/"):
                copy.writestr(name, data)


def renamed(data: bytes, name: str = "a class") -> bytes:
    """The class file `data` with names that dex can hold; errors call it `name`."""
    try:
        return _renamed(data)
    except (struct.error, KeyError, IndexError, ValueError) as problem:
        raise StageFailed(f"{name} is not a class file", cause=str(problem)) from problem


def _renamed(data: bytes) -> bytes:
    magic, _, count = struct.unpack_from(">IIH", data)
    if magic != _MAGIC:
        raise ValueError("it does not begin as one")
    texts: dict[int, bytes] = {}
    entries: list[tuple[int, bytes]] = []
    literal: set[int] = set()
    at, index = 10, 1
    while index < count:
        tag = data[at]
        size = 2 + struct.unpack_from(">H", data, at + 1)[0] if tag == _UTF8 else _SIZES[tag]
        body = data[at + 1 : at + 1 + size]
        if len(body) < size:
            raise ValueError("it ends within its constants")
        if tag == _UTF8:
            texts[index] = body[2:]
        elif tag == _STRING:
            literal.add(struct.unpack(">H", body)[0])
        entries.append((index, data[at : at + 1] + body))
        index += 2 if tag in _WIDE else 1
        at += 1 + size
    pieces = [data[:10]]
    for number, entry in entries:
        if number in texts and number not in literal:
            text = _fit(texts[number])
            entry = struct.pack(">BH", _UTF8, len(text)) + text
        pieces.append(entry)
    return b"".join([*pieces, data[at:]])


def _fit(text: bytes) -> bytes:
    return _UNFIT.sub(b"_", text)
