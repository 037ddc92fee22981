"""Manifests are read as Android reads them, and no bytes do harm."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tools import apk, axml

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
# Written by aapt2 2.19 from the manifest of the template.
REAL = (TRANSCRIPTS / "AndroidManifest.axml").read_bytes()


class Encoder:
    """Writes binary XML from the description of the format, apart from the reader."""

    def __init__(self, *, utf8: bool) -> None:
        self.utf8 = utf8
        self.strings: list[str] = []
        self.resources: list[int] = []

    def document(self, root: axml.Element) -> bytes:
        # Names with resource ids come first in the pool: the map runs parallel to it.
        self._name_resources(root)
        body = self._element(root)
        table = struct.pack(f"<{len(self.resources)}I", *self.resources)
        body = self._pool() + self._chunk(0x0180, b"", table) + body
        return self._chunk(0x0003, b"", body)

    def _name_resources(self, element: axml.Element) -> None:
        for resource in element.framework:
            if resource not in self.resources:
                self.resources.append(resource)
                self.strings.append(f"attribute{len(self.resources)}")
        for child in element.children:
            self._name_resources(child)

    def _index(self, text: str) -> int:
        first = len(self.resources)
        if text not in self.strings[first:]:
            self.strings.append(text)
        return self.strings.index(text, first)

    def _element(self, element: axml.Element) -> bytes:
        attributes = [(self.resources.index(r), v) for r, v in element.framework.items()]
        attributes += [(self._index(name), value) for name, value in element.plain.items()]
        name = self._index(element.tag)
        rows = b"".join(self._attribute(index, value) for index, value in attributes)
        extension = struct.pack("<IIHHHHHH", 0xFFFFFFFF, name, 20, 20, len(attributes), 0, 0, 0)
        node = struct.pack("<II", 1, 0xFFFFFFFF)
        start = self._chunk(0x0102, node, extension + rows)
        children = b"".join(self._element(child) for child in element.children)
        return start + children + self._chunk(0x0103, node, struct.pack("<II", 0xFFFFFFFF, name))

    def _attribute(self, name: int, value: axml.Value) -> bytes:
        if isinstance(value, bool):
            kind, data = 0x12, 0xFFFFFFFF if value else 0
        elif isinstance(value, int):
            kind, data = 0x10, value & 0xFFFFFFFF
        elif isinstance(value, str):
            kind, data = 0x03, self._index(value)
        elif isinstance(value, axml.Reference):
            kind, data = 0x01, value.resource
        else:
            kind, data = 0x00, 0
        return struct.pack("<IIIHBBI", 0xFFFFFFFF, name, 0xFFFFFFFF, 8, 0, kind, data)

    def _pool(self) -> bytes:
        offsets, content = [], b""
        for text in self.strings:
            offsets.append(len(content))
            content += self._string(text)
        content += bytes(-len(content) % 4)
        start = 28 + 4 * len(offsets)
        flags = 0x100 if self.utf8 else 0
        header = struct.pack("<5I", len(offsets), 0, flags, start, 0)
        return self._chunk(0x0001, header, struct.pack(f"<{len(offsets)}I", *offsets) + content)

    def _string(self, text: str) -> bytes:
        units = len(text.encode("utf-16-le")) // 2
        if not self.utf8:
            return self._length(units, 2) + text.encode("utf-16-le") + b"\0\0"
        raw = text.encode()
        return self._length(units, 1) + self._length(len(raw), 1) + raw + b"\0"

    def _length(self, value: int, unit: int) -> bytes:
        bits = 8 * unit - 1
        if value < 1 << bits:
            return value.to_bytes(unit, "little")
        high = (value >> (8 * unit)) | 1 << bits
        return high.to_bytes(unit, "little") + (value & (1 << 8 * unit) - 1).to_bytes(
            unit, "little"
        )

    def _chunk(self, kind: int, header: bytes, body: bytes) -> bytes:
        return (
            struct.pack("<HHI", kind, 8 + len(header), 8 + len(header) + len(body)) + header + body
        )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 31), (1 << 31) - 1)
    | texts
    | st.builds(axml.Reference, st.integers(0, (1 << 32) - 1))
)
elements = st.recursive(
    st.builds(
        axml.Element,
        texts,
        st.dictionaries(texts, values, max_size=3),
        st.dictionaries(st.integers(1, (1 << 32) - 1), values, max_size=3),
        st.just([]),
    ),
    lambda inner: st.builds(
        axml.Element,
        texts,
        st.just({}),
        st.dictionaries(st.integers(1, (1 << 32) - 1), values, max_size=2),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


@given(elements, st.booleans())
def test_any_document_is_read_as_it_was_written(root: axml.Element, utf8: bool) -> None:
    assert axml.read(Encoder(utf8=utf8).document(root)) == root


@pytest.mark.parametrize("length", [127, 128, 300, 32_767])
@pytest.mark.parametrize("utf8", [True, False])
def test_long_strings_have_lengths_of_two_units(length: int, utf8: bool) -> None:
    root = axml.Element("a" * length)
    assert axml.read(Encoder(utf8=utf8).document(root)) == root


@given(st.integers(0, len(REAL) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_document_is_read_or_refused_and_nothing_else(place: int, junk: bytes) -> None:
    damaged = REAL[:place] + junk + REAL[place + len(junk) :]
    with contextlib.suppress(axml.AxmlError):
        apk.parse_manifest(damaged)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_one_error(data: bytes) -> None:
    with pytest.raises(axml.AxmlError):
        axml.read(data)


@pytest.mark.parametrize("kept", [0, 7, 8, 40, len(REAL) // 2, len(REAL) - 1])
def test_a_document_that_is_cut_short_is_refused(kept: int) -> None:
    with pytest.raises(axml.AxmlError):
        axml.read(REAL[:kept])


def test_strings_that_overlap_cannot_grow_a_document() -> None:
    children = [axml.Element(letter * 100) for letter in "bcdefgh"]
    root = axml.Element("a" * 100, children=children)
    document = bytearray(Encoder(utf8=True).document(root))
    index = 8 + 28
    content = index + 4 * 8
    # Every byte is now a length of 127 as well as a letter; the strings begin a byte apart.
    document[content : content + 8 * 103] = b"\x7f" * (8 * 103)
    struct.pack_into("<8I", document, index, *range(8))
    with pytest.raises(axml.AxmlError, match="overlap"):
        axml.read(bytes(document))


def test_deep_nesting_is_refused() -> None:
    root = axml.Element("a")
    for _ in range(axml.MAX_DEPTH):
        root = axml.Element("a", children=[root])
    with pytest.raises(axml.AxmlError, match="nested deeper"):
        axml.read(Encoder(utf8=True).document(root))


def test_the_manifest_of_the_template_is_read_whole() -> None:
    manifest = apk.parse_manifest(REAL)
    assert manifest == apk.Manifest(
        package="dev.alc.harness",
        version_code=100,
        version_name="0.1.0",
        min_sdk=26,
        target_sdk=35,
        debuggable=False,
        extract_native_libs=False,
        application=None,
        instrumentations=(
            apk.Instrumentation("dev.alc.app.HarnessInstrumentation", "dev.alc.harness"),
        ),
        activities=(apk.Activity("dev.alc.app.MainActivity", exported=True, launcher=True),),
        permissions=(),
        native_libraries=(apk.NativeLibrary("libOpenCL.so", required=False),),
    )


NAME, LABEL, DEBUGGABLE, MIN_SDK = 0x01010003, 0x01010001, 0x0101000F, 0x0101020C


def manifest(*children: axml.Element, package: axml.Value = "a.b") -> bytes:
    root = axml.Element("manifest", {"package": package}, {}, list(children))
    return Encoder(utf8=True).document(root)


@pytest.mark.parametrize(
    ("written", "read"),
    [(".Main", "a.b.Main"), ("Main", "a.b.Main"), ("c.d.Main", "c.d.Main")],
)
def test_class_names_are_completed_with_the_package(written: str, read: str) -> None:
    activity = axml.Element("activity", framework={NAME: written})
    parsed = apk.parse_manifest(manifest(axml.Element("application", children=[activity])))
    assert [each.name for each in parsed.activities] == [read]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (manifest(package="../../etc"), "no valid package"),
        (manifest(package="a"), "no valid package"),
        (manifest(package=None), "no valid package"),
        (Encoder(utf8=True).document(axml.Element("resources")), "root element"),
        (manifest(axml.Element("application"), axml.Element("application")), "two <application>"),
        (manifest(axml.Element("uses-sdk", framework={MIN_SDK: "Baklava"})), "not a number"),
        (manifest(axml.Element("uses-sdk", framework={MIN_SDK: -1})), "not a number"),
        (
            manifest(axml.Element("application", framework={DEBUGGABLE: axml.Reference(1)})),
            "not true or false",
        ),
        (manifest(axml.Element("instrumentation", framework={NAME: ".I"})), "no targetPackage"),
        (manifest(axml.Element("instrumentation", framework={NAME: "a b;c"})), "no valid class"),
    ],
)
def test_a_manifest_that_no_phone_would_take_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(axml.AxmlError, match=reason):
        apk.parse_manifest(data)


def archive(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def test_a_manifest_is_read_from_its_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.apk", ("AndroidManifest.xml", REAL))
    assert apk.read_manifest(path) == apk.parse_manifest(REAL)


def _encrypted(data: bytes) -> bytes:
    changed = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[data.index(signature) + offset] |= 1
    return bytes(changed)


def _unknown_compression(data: bytes) -> bytes:
    changed = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        changed[data.index(signature) + offset] = 99
    return bytes(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"PK\x03\x04 and no more",
        lambda data: data[: len(data) // 2],
        _encrypted,
        _unknown_compression,
        lambda data: data.replace(b"AndroidManifest.xml", b"androidmanifest.xml"),
    ],
    ids=["empty", "only a signature", "cut", "encrypted", "compression", "no manifest"],
)
def test_a_file_that_is_no_apk_is_one_clear_error(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = archive(tmp_path / "a.apk", ("AndroidManifest.xml", REAL))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(apk.BadApk) as caught:
        apk.read_manifest(path)
    assert caught.value.cause and caught.value.remedy


def test_two_manifests_and_huge_ones_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = archive(tmp_path / "a.apk", *[("AndroidManifest.xml", REAL)] * 2)
    with pytest.raises(apk.BadApk, match="not a usable") as caught:
        apk.read_manifest(twice)
    assert "more than one" in caught.value.cause
    bomb = archive(tmp_path / "b.apk", ("AndroidManifest.xml", bytes(50 << 20)))
    with pytest.raises(apk.BadApk) as caught:
        apk.read_manifest(bomb)
    assert "52428800 bytes" in caught.value.cause


def test_a_missing_apk_is_named(tmp_path: Path) -> None:
    with pytest.raises(apk.BadApk, match=r"nothing\.apk"):
        apk.read_manifest(tmp_path / "nothing.apk")


@given(st.data())
def test_a_damaged_archive_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("AndroidManifest.xml", REAL)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("apk") / "a.apk"
    path.write_bytes(content)
    with contextlib.suppress(apk.BadApk):
        apk.read_manifest(path)
