"""Records of the sync service, as other programs read them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual_phone import sync_format


@given(st.binary(max_size=3 * sync_format.DATA_MAX))
def test_data_records_carry_every_byte_in_blocks_of_64_kib(block: bytes) -> None:
    stream = b"".join(bytes(piece) for piece in sync_format.data(block))
    carried = b""
    while stream:
        name, length = sync_format.request(stream[:8])
        assert name == "DATA" and 0 < length <= sync_format.DATA_MAX
        carried += stream[8 : 8 + length]
        stream = stream[8 + length :]
    assert carried == block


@given(st.text(min_size=1), st.integers(0, 0o177777))
def test_a_v1_push_names_path_and_mode(path: str, mode: int) -> None:
    assert sync_format.split_send_v1(f"{path},{mode}") == (path, mode)


@pytest.mark.parametrize("spec", ["", "/path", "/path,rw", ",33188"])
def test_a_v1_push_without_a_mode_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        sync_format.split_send_v1(spec)


def test_stat_v2_tells_sizes_beyond_32_bits(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as opened:
        opened.truncate(5 << 30)
    facts = file.stat()
    record = sync_format.stat_v2("STA2", facts)
    assert len(record) == 72
    assert struct.unpack_from("<Q", record, 40)[0] == 5 << 30
    assert sync_format.stat_v1(facts)[8:12] == struct.pack("<I", (5 << 30) & 0xFFFFFFFF)


def test_a_missing_file_is_zeros_in_v1_and_an_errno_in_v2() -> None:
    assert sync_format.stat_v1(None) == b"STAT" + bytes(12)
    assert struct.unpack_from("<I", sync_format.stat_v2("LST2", 2), 4)[0] == 2


@given(st.binary(max_size=255))
def test_list_entries_end_with_the_name(name: bytes) -> None:
    facts = os.stat_result((0o100644, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    for entry in (sync_format.dent_v1(name, facts), sync_format.dent_v2(name, facts)):
        assert entry.endswith(struct.pack("<I", len(name)) + name)


@pytest.mark.parametrize("version", [1, 2])
def test_the_end_of_a_list_is_as_long_as_an_entry(version: int) -> None:
    record = {1: 20, 2: 76}[version]
    assert sync_format.list_done(version=version) == b"DONE" + bytes(record - 4)
