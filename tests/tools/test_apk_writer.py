"""APK archives are aligned, ordered as asked, and the same bytes for the same content."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tools import apk_writer
from harness.tools.apk_writer import Entry

names = st.text("abcdef/._-é", min_size=1, max_size=30)
entries = st.lists(
    st.builds(
        Entry,
        st.one_of(names, names.map(lambda name: f"{name}.so")),
        st.binary(max_size=5000),
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda entry: entry.name,
)


def content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the entry's bytes begin, by its local header."""
    header = path.read_bytes()[info.header_offset : info.header_offset + 30]
    name, extra = struct.unpack_from("<HH", header, 26)
    return info.header_offset + 30 + int(name) + int(extra)


@given(entries)
def test_any_entries_are_read_back_by_another_implementation(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[Entry]
) -> None:
    path = tmp_path_factory.mktemp("apk") / "a.apk"
    apk_writer.write(path, wanted)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [entry.name for entry in wanted]
        for entry, info in zip(wanted, archive.infolist(), strict=True):
            assert archive.read(info) == entry.content
            assert (info.compress_type == zipfile.ZIP_STORED) == entry.stored
            if entry.stored:
                page = 16384 if entry.name.endswith(".so") else 4
                assert content_offset(path, info) % page == 0
    assert list(apk_writer.entries_of(path)) == wanted


def test_the_same_content_gives_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    wanted = [Entry("a.txt", b"a" * 999, False), Entry("lib/x/a.so", b"b" * 99, True)]
    for name in ("one.apk", "two.apk"):
        apk_writer.write(tmp_path / name, wanted)
    assert (tmp_path / "one.apk").read_bytes() == (tmp_path / "two.apk").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.apk") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1981, 1, 1, 0, 0, 0)}


def test_a_name_that_occurs_twice_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes\.dex would be in the archive twice"):
        apk_writer.write(tmp_path / "a.apk", [Entry("classes.dex", b"", True)] * 2)
    assert list(tmp_path.iterdir()) == []
