import errno
from pathlib import Path

import pytest

from harness import files
from harness.errors import StageFailed


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    with files.atomic_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_said_and_leaves_nothing() -> None:
    # /dev/full exists to answer every write with ENOSPC.
    with (
        pytest.raises(OSError, match="No space") as caught,
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")
    failure = files.disk_error(Path("/some/file"), caught.value)
    assert isinstance(failure, StageFailed)
    assert caught.value.errno == errno.ENOSPC
    assert failure.cause == "the disk is full"


def test_equal_documents_have_equal_bytes() -> None:
    assert files.canonical_json({"b": 1, "a": "é"}) == files.canonical_json({"a": "é", "b": 1})


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StageFailed, match="cannot write"):
        files.write_text(tmp_path / "file" / "a" / "b.txt", "hello")
