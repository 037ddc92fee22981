"""Reader of Android's binary XML (the chunks of AOSP's ResourceTypes.h), strict and bounded.

Whatever the bytes are, reading ends with an element or an `AxmlError`, in time and memory
proportional to their number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BYTES = 1 << 20
MAX_DEPTH = 64

_STRING_POOL = 0x0001
_XML = 0x0003
_START_NAMESPACE = 0x0100
_END_NAMESPACE = 0x0101
_START_ELEMENT = 0x0102
_END_ELEMENT = 0x0103
_TEXT = 0x0104
_RESOURCE_MAP = 0x0180
_UTF8_FLAG = 0x100

_TYPE_REFERENCE = 0x01
_TYPE_STRING = 0x03
_TYPE_INTEGERS = (0x10, 0x11)
_TYPE_BOOLEAN = 0x12
_NONE = 0xFFFFFFFF


class AxmlError(ValueError):
    """The bytes are not a well-formed binary XML document."""


@dataclass(frozen=True)
class Reference:
    """A value that stands in the resource table, such as @string/app_name."""

    resource: int


# None stands for the types that manifests do not need (dimensions, colours, floats).
Value = str | int | bool | Reference | None


@dataclass
class Element:
    """An element; `framework` holds its android:* attributes by resource id, `plain` the others.

    Android goes by the id and ignores the name, so the name of an android:* attribute is not kept.
    """

    tag: str
    plain: dict[str, Value] = field(default_factory=dict)
    framework: dict[int, Value] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def each(self, tag: str) -> Iterator[Element]:
        """The children with this tag."""
        return (child for child in self.children if child.tag == tag)


def read(data: bytes) -> Element:
    """The root element of a binary XML document of at most `MAX_BYTES`.

    Raises `AxmlError` with what is wrong and where.
    """
    if len(data) > MAX_BYTES:
        raise AxmlError(f"it has {len(data)} bytes, more than {MAX_BYTES}")
    kind, header, size = _chunk(data, 0, len(data))
    if kind != _XML:
        raise AxmlError("it does not begin as binary XML")
    document = _Document(data)
    offset = header
    while offset < size:
        kind, header, length = _chunk(data, offset, size)
        document.chunk(kind, offset, header, length)
        offset += length
    return document.result()


def _chunk(data: bytes, offset: int, end: int) -> tuple[int, int, int]:
    """Type, header size and whole size of the chunk at `offset`, all inside `end`."""
    if end - offset < 8:
        raise AxmlError(f"a chunk at {offset} is cut short")
    kind, header, size = struct.unpack_from("<HHI", data, offset)
    if header < 8 or size < header or size % 4 or offset + size > end:
        raise AxmlError(f"the chunk at {offset} has a wrong size")
    return kind, header, size


class _Document:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._strings: _Strings | None = None
        self._resources: tuple[int, ...] = ()
        self._open: list[Element] = []
        self._root: Element | None = None

    def chunk(self, kind: int, offset: int, header: int, size: int) -> None:
        if kind == _STRING_POOL:
            if self._strings is not None:
                raise AxmlError("there are two string pools")
            self._strings = _Strings(self._data, offset, header, size)
        elif kind == _RESOURCE_MAP:
            count = (size - header) // 4
            self._resources = struct.unpack_from(f"<{count}I", self._data, offset + header)
        elif kind == _START_ELEMENT:
            self._start(offset, header, size)
        elif kind == _END_ELEMENT:
            self._end(offset, header, size)
        elif kind not in (_START_NAMESPACE, _END_NAMESPACE, _TEXT):
            raise AxmlError(f"the chunk at {offset} has the unknown type {kind:#06x}")

    def result(self) -> Element:
        if self._open:
            raise AxmlError(f"<{self._open[-1].tag}> is not closed")
        if self._root is None:
            raise AxmlError("it has no element")
        return self._root

    def _string(self, index: int) -> str:
        if self._strings is None:
            raise AxmlError("an element stands before the string pool")
        return self._strings[index]

    def _start(self, offset: int, header: int, size: int) -> None:
        if header < 16 or size < header + 20:
            raise AxmlError(f"the element at {offset} is cut short")
        _, name, start, width, count = struct.unpack_from("<IIHHH", self._data, offset + header)
        if count and (width < 20 or header + start + width * count > size):
            raise AxmlError(f"the attributes at {offset} reach past their element")
        element = Element(self._string(name))
        for number in range(count):
            self._attribute(element, offset + header + start + width * number)
        if self._open:
            self._open[-1].children.append(element)
        elif self._root is None:
            self._root = element
        else:
            raise AxmlError("there are two root elements")
        self._open.append(element)
        if len(self._open) > MAX_DEPTH:
            raise AxmlError(f"elements are nested deeper than {MAX_DEPTH}")

    def _end(self, offset: int, header: int, size: int) -> None:
        if header < 16 or size < header + 8:
            raise AxmlError(f"the element's end at {offset} is cut short")
        _, name = struct.unpack_from("<II", self._data, offset + header)
        if not self._open or self._open.pop().tag != self._string(name):
            raise AxmlError(f"</{self._string(name)}> closes no open element")

    def _attribute(self, element: Element, offset: int) -> None:
        name, raw, _, _, kind, data = struct.unpack_from("<4xIIHBBI", self._data, offset)
        value: Value = None
        if kind == _TYPE_STRING:
            value = self._string(data)
        elif kind == _TYPE_REFERENCE:
            value = Reference(data)
        elif kind in _TYPE_INTEGERS:
            value = data - (1 << 32) if data & 0x80000000 else data
        elif kind == _TYPE_BOOLEAN:
            value = data != 0
        elif raw != _NONE:
            value = self._string(raw)
        resource = self._resources[name] if name < len(self._resources) else 0
        if resource:
            if resource in element.framework:
                raise AxmlError(f"<{element.tag}> has the attribute {resource:#010x} twice")
            element.framework[resource] = value
            return
        text = self._string(name)
        if text in element.plain:
            raise AxmlError(f"<{element.tag}> has the attribute {text} twice")
        element.plain[text] = value


class _Strings:
    """A string pool, decoded where it is asked for."""

    def __init__(self, data: bytes, offset: int, header: int, size: int) -> None:
        if header < 28:
            raise AxmlError("the string pool's header is cut short")
        count, _, flags, start = struct.unpack_from("<4I", data, offset + 8)
        if header + 4 * count > size or start > size:
            raise AxmlError("the string pool's index reaches past the pool")
        self._pool = data[offset + start : offset + size]
        self._offsets: tuple[int, ...] = struct.unpack_from(f"<{count}I", data, offset + header)
        self._utf8 = bool(flags & _UTF8_FLAG)
        self._decoded: dict[int, str] = {}
        # Strings that overlap could make a small file a huge document.
        self._left = len(self._pool)

    def __getitem__(self, index: int) -> str:
        if index >= len(self._offsets):
            raise AxmlError(f"there is no string {index}")
        offset = self._offsets[index]
        text = self._decoded.get(offset)
        if text is None:
            text = self._decoded[offset] = self._decode(offset)
        return text

    def _decode(self, offset: int) -> str:
        if self._utf8:
            _, offset = self._length(offset, 1)
            length, offset = self._length(offset, 1)
        else:
            length, offset = self._length(offset, 2)
            length *= 2
        raw = self._pool[offset : offset + length]
        self._left -= length
        if len(raw) < length:
            raise AxmlError("a string reaches past the pool")
        if self._left < 0:
            raise AxmlError("the strings overlap")
        try:
            if self._utf8:
                # aapt2 writes Java's modified UTF-8: surrogate pairs as two sequences of three.
                raw = raw.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
            return raw.decode("utf-16-le")
        except UnicodeDecodeError as problem:
            raise AxmlError(f"a string is not Unicode: {problem.reason}") from problem

    def _length(self, offset: int, unit: int) -> tuple[int, int]:
        """A length of one or two units; the first unit's top bit says which."""
        units = self._pool[offset : offset + 2 * unit]
        if len(units) < unit:
            raise AxmlError("a string begins past the pool")
        top = 0x80 << (8 * (unit - 1))
        first = int.from_bytes(units[:unit], "little")
        if not first & top:
            return first, offset + unit
        if len(units) < 2 * unit:
            raise AxmlError("a string begins past the pool")
        second = int.from_bytes(units[unit:], "little")
        return (first & ~top) << (8 * unit) | second, offset + 2 * unit
