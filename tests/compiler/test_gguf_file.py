from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.compiler.checkpoints.gguf_file import read_gguf
from harness.errors import StageFailed


def test_the_reader_agrees_with_the_gguf_package(tiny_gguf: Path) -> None:
    ours, theirs = read_gguf(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    assert [t.name for t in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.type == tensor.tensor_type
        assert mine.shape == tuple(int(size) for size in reversed(tensor.shape))
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(mine.values(), values.reshape(mine.shape))
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            assert ours.metadata[name] == field.contents(), name


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04 not a model", "does not begin with the letters GGUF"),
        (b"GGUF\x03\x00", "truncated?"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "version 1 is not supported"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors, more than it has bytes for"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "entries, more than it has bytes for"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 40) + bytes(64), "a name of"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77) + bytes(64), "value type 77"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 50) + bytes(64),
            "values, more than it has bytes for",
        ),
    ],
)
def test_a_file_that_is_not_gguf_is_one_clear_error(
    tmp_path: Path, data: bytes, cause: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(StageFailed) as caught:
        read_gguf(path)
    assert cause in caught.value.cause
    assert "model.gguf" in caught.value.what and caught.value.remedy


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="No such file"):
        read_gguf(tmp_path / "none.gguf")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(
    tiny_gguf: Path, tmp_path: Path, share: float
) -> None:
    data = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StageFailed, match="truncated"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        # Sparse: what is announced has its bytes, yet nobody means it.
        (struct.pack("<IQQ", 3, 1 << 20, 0), "it announces 1048576 tensors"),
        (
            struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 0, 1 << 24),
            "16777216 values, more than any model has",
        ),
        (struct.pack("<IQQQ1sIQ", 3, 0, 1, 1, b"k", 8, 140 << 20), "its header has more than"),
    ],
)
def test_a_header_of_any_size_takes_little_memory(tmp_path: Path, data: bytes, cause: str) -> None:
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + data)
        file.truncate(150 << 20)
    with pytest.raises(StageFailed, match=cause):
        read_gguf(path)


def test_thousands_of_damaged_headers_give_no_more_than_a_harness_error(
    tiny_gguf: Path, fuzz: Callable[..., int]
) -> None:
    def read(path: Path) -> None:
        for tensor in read_gguf(path).tensors.values():
            assert tensor.data.size > 0

    refused = fuzz(tiny_gguf.read_bytes(), 9000, read, 3000, "damaged.gguf")
    assert 1000 < refused < 3000
