"""adb's messages: what is packed comes back, what is no message is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual_phone import protocol
from harness.virtual_phone.protocol import Header, ProtocolError

words = st.integers(0, 0xFFFFFFFF)


@given(words, words, words, st.integers(0, protocol.MAX_PAYLOAD), words)
def test_a_header_comes_back_as_it_was_packed(
    command: int, first: int, second: int, length: int, checksum: int
) -> None:
    header = Header(command, first, second, length, checksum)
    assert Header.unpack(header.pack()) == header


@given(st.binary(min_size=24, max_size=24))
def test_bytes_that_are_no_header_are_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        header = Header.unpack(data)
    except ProtocolError:
        return
    assert header.pack() == data


def test_a_payload_longer_than_the_limit_is_refused() -> None:
    header = Header(protocol.WRTE, 1, 1, protocol.MAX_PAYLOAD + 1, 0)
    with pytest.raises(ProtocolError, match="longer"):
        Header.unpack(header.pack())


def test_commands_are_the_four_letters_on_the_wire() -> None:
    assert Header(protocol.CNXN, 0, 0, 0, 0).pack().startswith(b"CNXN")


@given(st.lists(st.from_regex(r"[a-z_0-9]{1,20}", fullmatch=True)))
def test_the_banner_names_the_phone_and_its_features(features: list[str]) -> None:
    text = protocol.banner({"ro.product.model": "Virtual Phone"}, features)
    assert text.startswith("device::ro.product.name=;ro.product.model=Virtual Phone;")
    assert text.endswith(";features=" + ",".join(features))
