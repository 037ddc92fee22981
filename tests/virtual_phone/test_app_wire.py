"""What apps and the activity manager exchange."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual_phone import app_wire
from harness.virtual_phone.app_wire import Reader, WireError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(texts, texts, max_size=6), texts)
def test_bundles_and_texts_come_back(values: dict[str, str], text: str) -> None:
    reader = Reader(app_wire.bundle(values) + app_wire.text(text))
    assert reader.bundle() == values
    assert reader.text() == text


@given(st.binary(max_size=60))
def test_bytes_that_are_no_bundle_are_refused(body: bytes) -> None:
    try:
        Reader(body).bundle()
    except WireError:
        return


@given(st.integers(1, 255), st.binary(max_size=60))
def test_a_frame_says_its_length(kind: int, body: bytes) -> None:
    frame = app_wire.frame(kind, body)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert frame[4] == kind


def test_a_length_beyond_the_frame_is_refused() -> None:
    with pytest.raises(WireError):
        Reader(b"\x7f\xff\xff\xff").text()
