"""Class files whose names dex has no room for."""

from __future__ import annotations

import contextlib
import re
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StageFailed
from harness.tools import class_names

HEAD = struct.pack(">IHH", 0xCAFEBABE, 0, 61)


def constants(*entries: bytes) -> bytes:
    """A class file's head with these constants, and a tail that is carried along."""
    return HEAD + struct.pack(">H", len(entries) + 1) + b"".join(entries) + b"the rest"


def utf8(text: str) -> bytes:
    return struct.pack(">BH", 1, len(text.encode())) + text.encode()


def text_of(number: int) -> bytes:
    """A constant that the program uses as a text."""
    return struct.pack(">BH", 8, number)


def class_of(number: int) -> bytes:
    return struct.pack(">BH", 7, number)


def test_a_sentence_becomes_a_name_and_a_text_stays_as_it_is() -> None:
    name, text = "dev/Test$it's here, at last$1", "it's here, at last"
    made = class_names.renamed(constants(utf8(name), class_of(1), utf8(text), text_of(3)))
    assert made == constants(
        utf8("dev/Test$it_s_here__at_last$1"), class_of(1), utf8(text), text_of(3)
    )


def test_wide_constants_take_two_numbers() -> None:
    wide = struct.pack(">Bq", 5, 7)
    # The long is constants 2 and 3, so the text is 4.
    entries = (utf8("a name"), wide, utf8("a text"), text_of(4))
    head = HEAD + struct.pack(">H", 6)
    made = class_names.renamed(head + b"".join(entries))
    assert made == head + b"".join((utf8("a_name"), wide, utf8("a text"), text_of(4)))


@pytest.mark.parametrize(
    "signature",
    [
        "(Ljava/util/Map<TK;+Ljava/lang/Object;>;[[I)TV;",
        "<T:Ljava/lang/Object;:Ljava/lang/Runnable;>Ljava/util/List<*>;^TE;",
        "dev/alc/engine/ALCEngine$Companion",
        "ünïcödé_名前",
    ],
)
def test_what_fits_is_not_touched(signature: str) -> None:
    data = constants(utf8(signature))
    assert class_names.renamed(data) == data


@given(st.binary(max_size=200))
def test_bytes_that_are_no_class_file_are_refused(data: bytes) -> None:
    with pytest.raises(StageFailed, match="not a class file"):
        class_names.renamed(b"PK" + data)


@given(st.binary(max_size=200))
def test_damaged_constants_are_refused_or_carried_along(data: bytes) -> None:
    with contextlib.suppress(StageFailed):
        assert class_names.renamed(HEAD + data)[:8] == HEAD


def test_every_class_of_a_jar_gets_a_name_that_its_file_has(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jar", tmp_path / "out.jar"
    with zipfile.ZipFile(source, "w") as jar:
        jar.writestr("dev/T$one two.class", constants(utf8("dev/T$one two"), class_of(1)))
        jar.writestr("META-INF/services/some.Service", "dev.T")
    class_names.fit_for_dex(source, target)
    with zipfile.ZipFile(target) as jar:
        assert jar.namelist() == ["META-INF/services/some.Service", "dev/T$one_two.class"]
        assert re.search(rb"dev/T\$one_two", jar.read("dev/T$one_two.class"))
